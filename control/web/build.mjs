// Makes dist/ of src/: `npm ci && npm run build`. `npm run check` says whether dist/ is what src/ gives. The sums in
// dist/sums.json let a test without npm see that (control/tests/client.rs).
import { createHash } from "node:crypto";
import { execFileSync } from "node:child_process";
import { mkdtempSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const { version } = JSON.parse(readFileSync(join(here, "package.json"), "utf8"));
const files = folder => readdirSync(folder, { withFileTypes: true, recursive: true })
  .filter(entry => entry.isFile()).map(entry => join(entry.parentPath ?? entry.path, entry.name)).sort();
const sum = path => createHash("sha256").update(readFileSync(path)).digest("hex");

async function make(target) {
  rmSync(target, { recursive: true, force: true });
  mkdirSync(target, { recursive: true });
  const banner = { js: `// Sallyport client ${version}; built from control/web/src, not to be edited.` };
  const common = { entryPoints: [join(here, "src/index.ts")], bundle: true, target: "es2020", banner, charset: "utf8",
    absWorkingDir: here, legalComments: "none" };
  await build({ ...common, format: "esm", outfile: join(target, "sallyport.js") });
  // One global, the class itself with everything else as its members: `new Sallyport({ url })`.
  const footer = { js: "var Sallyport = Object.assign(SallyportClient.Sallyport, SallyportClient);" };
  await build({ ...common, format: "iife", globalName: "SallyportClient", footer, outfile: join(target, "sallyport.iife.js") });
  // The global `Grtc`, for pages written for another library.
  await build({ ...common, entryPoints: [join(here, "src/grtc.ts")], format: "iife", globalName: "Grtc",
    outfile: join(target, "grtc.js") });
  const tsc = join(here, "node_modules/typescript/bin/tsc");
  execFileSync(process.execPath, [tsc, "-p", here, "--outDir", join(target, "types")], { stdio: "inherit" });
  const sources = [...files(join(here, "src")), join(here, "package.json"), join(here, "tsconfig.json"), join(here, "build.mjs")];
  const sums = Object.fromEntries([...sources.map(path => [relative(here, path), sum(path)]),
    ...files(target).map(path => [join("dist", relative(target, path)), sum(path)])]);
  writeFileSync(join(target, "sums.json"), JSON.stringify(sums, null, 1) + "\n");
}

if (process.argv.includes("--check")) {
  const target = mkdtempSync(join(tmpdir(), "sallyport-client-"));
  try {
    await make(target);
    const read = folder => Object.fromEntries(files(folder).map(path => [relative(folder, path), readFileSync(path, "utf8")]));
    const [made, kept] = [read(target), read(join(here, "dist"))];
    const names = [...new Set([...Object.keys(made), ...Object.keys(kept)])];
    const wrong = names.filter(name => made[name] !== kept[name]);
    if (wrong.length) {
      console.error(`dist differs from what src gives: ${wrong.join(", ")}; run npm run build`);
      process.exitCode = 1;
    }
  } finally {
    rmSync(target, { recursive: true, force: true });
  }
} else {
  await make(join(here, "dist"));
}
