// The client of the official TypeScript SDK 2.x.
// Copied into the folder of its packages before it runs, so that plain imports find them.
import { readFileSync } from 'node:fs';
import { Client } from '@modelcontextprotocol/client';

const [job, number, ...target] = process.argv.slice(2);
const count = Number(number);
const SHARERS = 8;
const WARM_UP = 20;
const HUGE_MS = 20_000;
const report = (found) => console.log(JSON.stringify(found));

let transport;
if (target[0].startsWith('http')) {
    const { StreamableHTTPClientTransport } = await import('@modelcontextprotocol/client');
    transport = new StreamableHTTPClientTransport(new URL(target[0]));
} else {
    const { StdioClientTransport } = await import('@modelcontextprotocol/client/stdio');
    transport = new StdioClientTransport({ command: target[0], args: target.slice(1) });
}
const client = new Client({ name: 'benchmark', version: '1.0' }, { versionNegotiation: { mode: 'auto' } });
await client.connect(transport);

async function call() {
    const { content } = await client.callTool({ name: 'add', arguments: { a: 20, b: 22 } });
    if (content[0].text !== '42') throw new Error(`wrong answer: ${content[0].text}`);
}

if (job === 'huge') {
    try {
        const options = { onprogress: () => {}, timeout: HUGE_MS };
        const { content } = await client.callTool({ name: 'huge', arguments: {} }, options);
        report({ size: content[0].text.length });
    } catch (error) {
        report({ error: String(error).slice(0, 120) });
    }
} else {
    await call();
}
if (job === 'first') {
    report({ first: true });
} else if (job !== 'huge') {
    for (let step = 0; step < WARM_UP; step++) await call();
    const begin = performance.now();
    if (job === 'calls') {
        for (let step = 0; step < count; step++) await call();
        const ms = (performance.now() - begin) / count;
        const peak = Number(/VmHWM:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'ascii'))[1]);
        report({ ms, peak_kib: peak, version: client.getNegotiatedProtocolVersion() });
    } else {
        let errors = 0;
        const several = async () => {
            for (let step = 0; step < count; step++) await call().catch(() => errors++);
        };
        await Promise.all(Array.from({ length: SHARERS }, several));
        report({ rate: ((SHARERS * count - errors) * 1000) / (performance.now() - begin), errors });
    }
}
await client.close();
