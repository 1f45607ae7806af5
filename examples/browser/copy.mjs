// Copy what the page loads from node_modules/ into lib/.
import { copyFileSync, mkdirSync } from "node:fs";
import { basename } from "node:path";

const FILES = [
  "@huggingface/transformers/dist/transformers.min.js",
  "onnxruntime-web/dist/ort-wasm-simd-threaded.mjs",
  "onnxruntime-web/dist/ort-wasm-simd-threaded.wasm",
];

mkdirSync("lib", { recursive: true });
for (const file of FILES) copyFileSync(`node_modules/${file}`, `lib/${basename(file)}`);
