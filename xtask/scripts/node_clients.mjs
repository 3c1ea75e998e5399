// What a program with node-redis or ioredis meets, against a real ring.
//
// Arguments: the folder in which both are installed, and the ports of the nodes.

import assert from "node:assert/strict";
import { createRequire } from "node:module";

const [folder, ...ports] = process.argv.slice(2);
const require = createRequire(`${folder}/`);
const { createClient, createCluster } = require("redis");
const Redis = require("ioredis");

const PIPELINE = 5000;
let checks = 0;

function check(what, found, wanted) {
  assert.deepEqual(found, wanted, what);
  checks += 1;
}

async function refused(what, ask, words) {
  await assert.rejects(ask, (error) => error.message.includes(words), what);
  checks += 1;
}

async function until(holds) {
  const deadline = Date.now() + 30_000;
  while (!(await holds())) assert(Date.now() < deadline, "it does not come true");
}

async function nodeRedis(RESP) {
  const connect = (port) => createClient({ url: `redis://127.0.0.1:${port}`, RESP, name: "tester" }).connect();
  const [r, other] = await Promise.all([connect(ports[0]), connect(ports[1])]);
  const prefix = `node-redis:${RESP}:`;
  check("ping", await r.ping(), "PONG");
  check("name", await r.clientGetName(), "tester");
  check("set", await r.set(`${prefix}k`, "grüße"), "OK");
  check("get through another node", await other.get(`${prefix}k`), "grüße");
  check("get nothing", await r.get(`${prefix}nothing`), null);
  check("set nx", await r.set(`${prefix}k`, "v", { condition: "NX" }), null);
  check("set ex", await r.set(`${prefix}t`, "v", { expiration: { type: "EX", value: 1000 } }), "OK");
  check("ttl", (await r.ttl(`${prefix}t`)) > 990, true);
  check("set px", await r.set(`${prefix}t`, "v", { expiration: { type: "PX", value: 1 } }), "OK");
  await until(async () => (await r.exists(`${prefix}t`)) === 0);
  check("mset", await r.mSet({ [`${prefix}a`]: "1", [`${prefix}b`]: "2" }), "OK");
  check("mget", await r.mGet([`${prefix}a`, `${prefix}b`, `${prefix}nothing`]), ["1", "2", null]);
  check("incr", await r.incrBy(`${prefix}a`, 9), 10);
  check("del", await r.del([`${prefix}a`, `${prefix}b`, `${prefix}nothing`]), 2);
  // What is asked for in one turn is one pipeline.
  const numbers = Array.from({ length: PIPELINE }, (_, number) => number);
  check("writes at once", (await Promise.all(numbers.map((n) => r.set(`${prefix}${n}`, `${n}`)))).length, PIPELINE);
  check("reads at once", await Promise.all(numbers.map((n) => other.get(`${prefix}${n}`))), numbers.map(String));
  await refused("a list", () => r.lPush(`${prefix}l`, "v"), "unknown command 'lpush'");
  await refused("a transaction", () => r.multi().set(`${prefix}m`, "v").exec(), "unknown command 'multi'");
  check("of which nothing is done", await r.exists(`${prefix}m`), 0);
  await Promise.all([r.close(), other.close()]);
}

async function ioredis() {
  const [r, other] = ports.map((port) => new Redis({ port: Number(port), connectionName: "tester" }));
  const prefix = "ioredis:";
  check("ping", await r.ping(), "PONG");
  check("set", await r.set(`${prefix}k`, Buffer.from([0, 255, 13, 10])), "OK");
  check("get through another node", await other.getBuffer(`${prefix}k`), Buffer.from([0, 255, 13, 10]));
  check("set ex nx", await r.set(`${prefix}k`, "v", "EX", 1000, "NX"), null);
  check("setex", [await r.setex(`${prefix}t`, 1000, "v"), (await r.ttl(`${prefix}t`)) > 990], ["OK", true]);
  check("mget", await r.mget(`${prefix}t`, `${prefix}nothing`), ["v", null]);
  check("incr", [await r.incr(`${prefix}n`), await r.decrby(`${prefix}n`, 2)], [1, -1]);
  const numbers = Array.from({ length: PIPELINE }, (_, number) => number);
  const piped = async (client, command) => {
    const pipeline = client.pipeline();
    for (const number of numbers) command(pipeline, `${prefix}${number}`, number);
    return pipeline.exec();
  };
  const written = await piped(r, (pipeline, key, number) => pipeline.set(key, number));
  check("a pipeline of writes", written, numbers.map(() => [null, "OK"]));
  const read = await piped(other, (pipeline, key) => pipeline.get(key));
  check("a pipeline of reads", read, numbers.map((number) => [null, String(number)]));
  await refused("a script", () => r.eval("return 1", 0), "unknown command 'eval'");
  for (const client of [r, other]) await client.quit();
}

// Clients of a cluster go by slots, and are never redirected.
async function clusterModes() {
  const url = `redis://127.0.0.1:${ports[0]}`;
  const r = await createCluster({ rootNodes: [{ url }] }).connect();
  check("nodes", r.masters.map((node) => String(node.port)).sort(), [...ports].sort());
  const io = new Redis.Cluster([{ port: Number(ports[1]) }]);
  for (let number = 0; number < 300; number += 1) {
    check("set", await r.set(`slots:${number}`, `${number}`), "OK");
    check("get", await io.get(`slots:${number}`), `${number}`);
  }
  check("nodes", io.nodes("master").map((node) => String(node.options.port)).sort(), [...ports].sort());
  await Promise.all([r.close(), io.quit()]);
}

await nodeRedis(2);
await nodeRedis(3);
await ioredis();
await clusterModes();
console.log(`node-redis ${require("redis/package.json").version}, ioredis ${require("ioredis/package.json").version}: ${checks} checks`);
// Connections that a library keeps to itself must not keep the process.
process.exit(0);
