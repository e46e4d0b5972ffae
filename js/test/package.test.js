import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import { minify } from "terser";
import { folder } from "./helper.js";

// The package as npm gets it: how large it is, what is in it, and that it works where it is installed.

const run = promisify(execFile);
const here = new URL("..", import.meta.url).pathname;
const tsc = (cwd, ...args) => run(process.execPath, [
  here + "node_modules/typescript/bin/tsc", "--noEmit", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom", ...args,
], { cwd }).catch((e) => assert.fail(e.stdout));

test("it is less than 5 KB, minified and gzipped", async (t) => {
  const { code } = await minify(readFileSync(here + "hubbub.js", "utf8"), {
    module: true, compress: { passes: 2 },
  });
  const { length } = gzipSync(code, { level: 9 });
  t.diagnostic(`${length} bytes`);
  assert.ok(length < 5000, `${length} bytes`);
});

// The tarball is unpacked by npm where nothing else is; no registry is asked, as it needs nothing.
test("the tarball installs, has its types, and nothing that it need not have", async () => {
  const dir = folder();
  const [packed] = JSON.parse((await run("npm", ["pack", "--json", "--pack-destination", dir], { cwd: here })).stdout);
  assert.deepEqual(packed.files.map((f) => f.path).sort(), ["README.md", "hubbub.d.ts", "hubbub.js", "package.json"]);
  writeFileSync(path.join(dir, "package.json"), '{"name":"theirs","private":true,"type":"module"}');
  await run("npm", ["install", "--offline", "--no-audit", "--no-fund", path.join(dir, packed.filename)], { cwd: dir });
  writeFileSync(path.join(dir, "use.js"), `
    import { Hubbub, HubbubError } from "hubbub-client";
    const hub = new Hubbub("ws://127.0.0.1:1/ws", { WebSocket: class { close() {} } });
    hub.on("state", (s) => console.log(s));
    hub.room("lobby").join().catch((e) => console.log(e instanceof HubbubError, e.code));
    await null;
    hub.close();
  `);
  assert.equal((await run(process.execPath, ["use.js"], { cwd: dir })).stdout, "connecting\nclosed\ntrue closed\n");

  cpSync(here + "test/types.ts", path.join(dir, "use.ts"));
  await tsc(dir, "--strict", "use.ts");
});

test("README.md's programs are of this package's methods", async () => {
  const text = readFileSync(here + "README.md", "utf8");
  const blocks = [...text.matchAll(/```js\n([^]*?)```/g)].map((m) => m[1]);
  assert.ok(blocks.length >= 2);
  const dir = folder();
  mkdirSync(path.join(dir, "node_modules/hubbub-client"), { recursive: true });
  for (const name of ["hubbub.js", "hubbub.d.ts", "package.json"]) cpSync(here + name, path.join(dir, "node_modules/hubbub-client", name));
  writeFileSync(path.join(dir, "package.json"), '{"type":"module"}');
  writeFileSync(path.join(dir, "around.d.ts"), "declare var show: any; declare module 'ws';");
  for (const [i, block] of blocks.entries()) {
    const head = /import .*Hubbub/.test(block) ? "" : 'import { Hubbub } from "hubbub-client";\nconst hub = new Hubbub("ws://x/ws"), room = hub.room("lobby"), content = 1, key = "k", clientId = "c", signal = undefined;\n';
    writeFileSync(path.join(dir, `block${i}.js`), head + block + "\nexport {};\n");
  }
  await tsc(dir, "--allowJs", "--checkJs", "around.d.ts", ...blocks.map((_, i) => `block${i}.js`));
});
