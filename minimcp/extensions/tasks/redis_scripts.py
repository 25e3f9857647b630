"""Scripts that Redis runs to change records of tasks together with the indexes that they are found by.

Of the keys, which all begin alike, `task:<id>` is a hash with the fields of a record and the mark of its last change.
The indexes are the sorted sets `status:<status>` and `of:<principal>:<status>` by time of creation, `queued` by time of
the last change, and `expiring`, by the time at which something is due: for a record that has ended or is queued the end
of its time, for another one the time at which Redis forgets it. `owned:<owner>` is a hash from ids to versions,
`owners` the set of those that have one, `beats:<owner>` the number of heartbeats. An index is kept as long as the
records in it.
"""

from __future__ import annotations

# KEYS[1] is what all keys begin with.
_COMMON = """
local base = KEYS[1]
local statuses = {'queued', 'working', 'input_required', 'completed', 'failed', 'cancelled'}
local unfinished = {queued = true, working = true, input_required = true}

local function task(id) return base .. 'task:' .. id end
local function of_status(status) return base .. 'status:' .. status end
local function of_principal(whose, status) return base .. 'of:' .. whose .. ':' .. status end

-- Run a command that adds to an index, and keep that for as long as what is in it.
local function add_to(index, kept, command, ...)
    local left = redis.call('PTTL', index)
    redis.call(command, index, ...)
    if kept < 0 then
        redis.call('PERSIST', index)
    elseif left == -2 or (left >= 0 and left < kept) then
        redis.call('PEXPIRE', index, kept)
    end
end

local function disown(owner, id)
    local owned = base .. 'owned:' .. owner
    redis.call('HDEL', owned, id)
    if redis.call('EXISTS', owned) == 0 then redis.call('SREM', base .. 'owners', owner) end
end

local function leave(id, whose, status)
    redis.call('ZREM', of_status(status), id)
    redis.call('ZREM', of_principal(whose, status), id)
end

-- Put a record into its indexes. `kept` says for how many milliseconds, and `at` when these end.
local function enter(id, whose, created, new, kept, at)
    local status, owner = new.status, new.owner
    add_to(of_status(status), kept, 'ZADD', created, id)
    add_to(of_principal(whose, status), kept, 'ZADD', created, id)
    if status == 'queued' and owner == '' then
        add_to(base .. 'queued', kept, 'ZADD', new.updated, id)
    else
        redis.call('ZREM', base .. 'queued', id)
    end
    if owner ~= '' and unfinished[status] then
        add_to(base .. 'owned:' .. owner, kept, 'HSET', id, new.version)
        add_to(base .. 'owners', kept, 'SADD', owner)
    end
    if new.expires == '' then
        redis.call('ZREM', base .. 'expiring', id .. whose)
    else
        if status ~= 'working' and status ~= 'input_required' then at = new.expires end
        add_to(base .. 'expiring', kept, 'ZADD', at, id .. whose)
    end
end

local function keep(id, kept)
    if kept < 0 then redis.call('PERSIST', task(id)) else redis.call('PEXPIRE', task(id), kept) end
end

local function read(first)
    local new = {}
    for place = first, #ARGV, 2 do new[ARGV[place]] = ARGV[place + 1] end
    return new
end
"""

_ADD = """
local id, kept, at, new = ARGV[1], tonumber(ARGV[2]), ARGV[3], read(4)
local before = redis.call('HGET', task(id), 'mark')
if before then return before == new.mark and 1 or 0 end
redis.call('HSET', task(id), unpack(ARGV, 4))
keep(id, kept)
enter(id, redis.sha1hex(new.principal), new.created, new, kept, at)
return 1
"""

_REPLACE = """
local id, kept, at, before, new = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], read(5)
local old = redis.call('HMGET', task(id), 'version', 'mark', 'status', 'owner', 'principal', 'created')
-- It was changed before, if the answer to that was lost.
if old[1] ~= before then return old[2] == new.mark and 1 or 0 end
redis.call('HSET', task(id), unpack(ARGV, 5))
keep(id, kept)
local whose = redis.sha1hex(old[5])
if old[3] ~= new.status then leave(id, whose, old[3]) end
if old[4] ~= '' and (old[4] ~= new.owner or not unfinished[new.status]) then disown(old[4], id) end
enter(id, whose, old[6], new, kept, at)
return 1
"""

_REMOVE = """
local id = ARGV[1]
local old = redis.call('HMGET', task(id), 'status', 'owner', 'principal')
if not old[1] then return 0 end
local whose = redis.sha1hex(old[3])
redis.call('DEL', task(id))
leave(id, whose, old[1])
if old[2] ~= '' then disown(old[2], id) end
redis.call('ZREM', base .. 'queued', id)
redis.call('ZREM', base .. 'expiring', id .. whose)
return 1
"""

# A record that Redis has forgotten is taken out of all indexes, since nobody knows any more in which it was.
_EXPIRED = """
local found = {}
for _, each in ipairs(redis.call('ZRANGEBYSCORE', base .. 'expiring', '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])) do
    local id, whose = string.sub(each, 1, -41), string.sub(each, -40)
    local status = redis.call('HGET', task(id), 'status')
    if not status then
        for _, status in ipairs(statuses) do leave(id, whose, status) end
        for _, owner in ipairs(redis.call('SMEMBERS', base .. 'owners')) do disown(owner, id) end
        redis.call('ZREM', base .. 'queued', id)
        redis.call('ZREM', base .. 'expiring', each)
    elseif status ~= 'working' and status ~= 'input_required' then
        found[#found + 1] = id
    end
end
return found
"""

_OWNERS = """
local found = {}
for _, owner in ipairs(redis.call('SMEMBERS', base .. 'owners')) do
    found[#found + 1] = owner
    found[#found + 1] = redis.call('GET', base .. 'beats:' .. owner) or '0'
end
return found
"""

_BEAT = """
redis.call('INCR', base .. 'beats:' .. ARGV[1])
redis.call('PEXPIRE', base .. 'beats:' .. ARGV[1], ARGV[2])
"""

_FIND = """
local limit, count = tonumber(ARGV[3]), tonumber(ARGV[4])
local rows, found = {}, {}
for place = 5 + count, #ARGV do
    local index = of_status(ARGV[place])
    if ARGV[1] == '1' then index = of_principal(redis.sha1hex(ARGV[2]), ARGV[place]) end
    local each = limit > 0 and redis.call('ZREVRANGE', index, 0, limit - 1, 'WITHSCORES') or {}
    for number = 1, #each, 2 do rows[#rows + 1] = {tonumber(each[number + 1]), each[number]} end
end
table.sort(rows, function(one, other)
    if one[1] ~= other[1] then return one[1] > other[1] end
    return one[2] > other[2]
end)
for number = 1, math.min(limit, #rows) do
    found[number] = redis.call('HMGET', task(rows[number][2]), unpack(ARGV, 5, 4 + count))
end
return found
"""

_COUNT = """
local own, open, total = 0, 0, 0
for _, status in ipairs(statuses) do
    local number = redis.call('ZCARD', of_status(status))
    total = total + number
    if unfinished[status] then
        open = open + number
        own = own + redis.call('ZCARD', of_principal(redis.sha1hex(ARGV[1]), status))
    end
end
return {own, open, total}
"""

SCRIPTS = {
    "add": _COMMON + _ADD,
    "replace": _COMMON + _REPLACE,
    "remove": _COMMON + _REMOVE,
    "expired": _COMMON + _EXPIRED,
    "owners": _COMMON + _OWNERS,
    "beat": _COMMON + _BEAT,
    "find": _COMMON + _FIND,
    "count": _COMMON + _COUNT,
}
