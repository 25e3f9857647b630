// The benchmark's server built with the TypeScript SDK, served by node:http.
// Copied into the folder of its packages before it runs, so that plain imports find them.
import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { parseArgs } from 'node:util';
import { McpServer, createMcpHandler } from '@modelcontextprotocol/server';
import { z } from 'zod';

const { positionals, values } = parseArgs({
    allowPositionals: true,
    options: { mode: { type: 'string', default: 'json' }, tools: { type: 'string', default: '0' } }
});
const [door, port] = positionals;
const text = (value) => ({ content: [{ type: 'text', text: value }] });
const BIG = 'x'.repeat(1024 * 1024);
const ADD = z.object({ a: z.number().int(), b: z.number().int() });
const SUM = z.object({ result: z.number().int() });
const STEPS = z.object({ count: z.number().int() });
const FORECAST = z.object({ city: z.string(), days: z.number().int().default(3), metric: z.boolean().default(true) });

function build() {
    const server = new McpServer({ name: 'benchmark', version: '1.0' });
    server.registerTool(
        'add',
        { description: 'Add two numbers.', inputSchema: ADD, outputSchema: SUM },
        async ({ a, b }) => ({ ...text(String(a + b)), structuredContent: { result: a + b } })
    );
    server.registerTool('steps', { description: 'Report progress.', inputSchema: STEPS }, async ({ count }, ctx) => {
        const progressToken = ctx.mcpReq._meta?.progressToken;
        for (let step = 1; step <= count; step++) {
            const params = { progressToken, progress: step, total: count };
            await ctx.mcpReq.notify({ method: 'notifications/progress', params });
        }
        return text('done');
    });
    server.registerTool('big', { description: 'Return one mebibyte of text.' }, async () => text(BIG));
    server.registerTool('compute', { description: 'Compute.' }, async () => {
        let total = 0;
        for (let number = 0; number < 10_000; number++) total += number % 7;
        return text(total < 0 ? '' : 'computed');
    });
    server.registerTool('wait', { description: 'Wait for 5 ms.' }, async () => {
        await new Promise(resolve => setTimeout(resolve, 5));
        return text('waited');
    });
    for (let number = 0; number < Number(values.tools); number++) {
        const description = `Forecast number ${number} for a city, some days ahead.`;
        server.registerTool(`forecast_${number}`, { description, inputSchema: FORECAST }, async ({ city }) => text(city));
    }
    return server;
}

if (door === 'stdio') {
    const { serveStdio } = await import('@modelcontextprotocol/server/stdio');
    serveStdio(build);
} else {
    const node = await import('@modelcontextprotocol/node');
    const validHost = node.localhostHostValidation();
    const validOrigin = node.localhostOriginValidation();
    const modern = node.toNodeHandler(createMcpHandler(build));
    const sessions = new Map();

    const legacy = async (request, response) => {
        let transport = sessions.get(request.headers['mcp-session-id']);
        if (!transport) {
            transport = new node.NodeStreamableHTTPServerTransport({
                sessionIdGenerator: () => randomUUID(),
                enableJsonResponse: true,
                onsessioninitialized: (id) => sessions.set(id, transport)
            });
            await build().connect(transport);
        }
        await transport.handleRequest(request, response);
    };
    createServer(async (request, response) => {
        if (!validHost(request, response) || !validOrigin(request, response)) return;
        await (values.mode === 'session' ? legacy : modern)(request, response);
    }).listen(Number(port), '127.0.0.1');
}
