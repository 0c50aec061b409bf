// For each line on stdin one round of work, and one line of what came out of it.
const assert = require("assert");
const crypto = require("crypto");
const events = require("events");
const readline = require("readline");
const vm = require("vm");
const zlib = require("zlib");

async function round() {
  const map = new Map();
  for (let i = 0; i < 50000; i++) map.set("k" + ((i * 7919) % 20011), { i, text: "x" + i, list: [i, i + 1] });
  const text = JSON.stringify([...map.entries()].sort((a, b) => (a[0] < b[0] ? -1 : 1)));
  const packed = zlib.gzipSync(text);
  assert.strictEqual(zlib.gunzipSync(packed).toString(), text);
  const later = await new Promise((resolve, reject) =>
    zlib.deflate(text, (error, data) => (error ? reject(error) : resolve(data.length))));
  const key = await new Promise((resolve) => crypto.scrypt("word", "salt", 32, { N: 256 }, (_, key) => resolve(key)));
  const emitter = new events.EventEmitter();
  let heard = 0;
  for (let i = 0; i < 10; i++) emitter.on("event", (n) => (heard += n));
  for (let i = 0; i < 2000; i++) emitter.emit("event", i);
  const inside = vm.runInNewContext("[...Array(500).keys()].map((n) => n * n).reduce((a, b) => a + b)");
  const found = [...text.matchAll(/"x(\d+)7"/g)].length;
  const numbers = new Float64Array(100000).map((_, i) => Math.sqrt(i));
  const total = numbers.reduce((a, b) => a + b).toFixed(3);
  let caught = 0;
  for (let i = 0; i < 500; i++) { try { null.x; } catch { caught++; } }
  const hash = crypto.createHash("sha256").update(text).digest("hex");
  return [map.size, hash, later, key.toString("hex"), heard, inside, found, total, caught, 2n ** 200n].join(" ");
}

const lines = readline.createInterface({ input: process.stdin });
let turn = Promise.resolve();
lines.on("line", () => (turn = turn.then(round).then((line) => console.log(line))));
