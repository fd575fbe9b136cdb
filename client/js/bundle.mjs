// Write what a page needs to a folder: `node bundle.mjs [FOLDER]`. Beside each large file lies its gzip.
import { copyFile, mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const folder = process.argv[2] ?? "dist/browser";
const runtime = "node_modules/onnxruntime-web/dist/";
await rm(folder, { recursive: true, force: true });
await mkdir(folder, { recursive: true });
await build({
  entryPoints: { "cdc-image": "src/element.ts", worker: "src/worker.ts" },
  outdir: folder,
  bundle: true,
  splitting: true,
  format: "esm",
  target: "es2022",
  minify: true,
  conditions: ["onnxruntime-web-use-extern-wasm"], // its WASM is fetched from beside the script
  legalComments: "none",
});
for (const kind of ["", ".asyncify"]) {
  for (const ending of ["mjs", "wasm"]) {
    const name = `ort-wasm-simd-threaded${kind}.${ending}`;
    await copyFile(runtime + name, `${folder}/${name}`);
  }
}
for (const name of await readdir(folder)) {
  const data = await readFile(`${folder}/${name}`);
  if (/\.(js|mjs|wasm)$/.test(name)) await writeFile(`${folder}/${name}.gz`, gzipSync(data, { level: 9 }));
}
