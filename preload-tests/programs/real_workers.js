// For each line on stdin one round of work by four new threads, and one line of what came out of it.
const { Worker, MessageChannel } = require("worker_threads");
const readline = require("readline");

const inside = `
  const { parentPort, workerData } = require("worker_threads");
  const crypto = require("crypto"), zlib = require("zlib");
  const { port, shared, number } = workerData;
  const counts = new Int32Array(shared);
  let list = [];
  for (let i = 0; i < 40000; i++) list.push({ at: i, text: "t" + ((i * 7919) % 20011), next: list[i >> 1] });
  const text = JSON.stringify(list.map(({ at, text }) => [at, text]));
  const unpacked = zlib.gunzipSync(zlib.gzipSync(text)).length;
  const key = crypto.pbkdf2Sync("word" + number, "salt", 500, 32, "sha256").toString("hex");
  for (let i = 0; i < 1000; i++) Atomics.add(counts, number, i);
  Atomics.notify(counts, number);
  const buffer = new ArrayBuffer(1 << 16);
  new Uint8Array(buffer).fill(number);
  port.on("message", (word) => {
    port.postMessage({ word, buffer, map: new Map([[number, new Set([unpacked, key])]]) }, [buffer]);
    port.close();
  });
  parentPort.postMessage(text.match(/t(\\d+)7/g).length);
  if (number === 3) throw new RangeError("thread 3 fails");
`;

async function round() {
  const shared = new SharedArrayBuffer(16);
  const lines = await Promise.all([0, 1, 2, 3].map((number) => new Promise((resolve, reject) => {
    const { port1, port2 } = new MessageChannel();
    const worker = new Worker(inside, { eval: true, workerData: { port: port2, shared, number }, transferList: [port2] });
    const said = [];
    // What a thread has said may come after its end.
    const heard = new Promise((closed) => port1.on("close", closed));
    worker.on("message", (found) => { said.push(found); port1.postMessage("hello"); });
    port1.on("message", ({ word, buffer, map }) => {
      said.push(word, buffer.byteLength, [...map.get(number)].join("/"));
      port1.close();
    });
    worker.on("error", (error) => { said.push(error.name); port1.close(); });
    worker.on("exit", (status) => heard.then(() => resolve(number === 3 ? "failed " + status : [status, ...said].join(" "))));
  })));
  const endless = new Worker("for (;;) new Array(1000).fill({});", { eval: true, resourceLimits: { maxOldGenerationSizeMb: 64 } });
  await new Promise((resolve) => endless.once("online", resolve));
  lines.push("ended " + (await endless.terminate()));
  return [...lines, [...new Int32Array(shared)].join(",")].join("; ");
}

const lines = readline.createInterface({ input: process.stdin });
let turn = Promise.resolve();
lines.on("line", () => (turn = turn.then(round).then((line) => console.log(line))));
