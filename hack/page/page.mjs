// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

// Runs two replicas of a manager with faulty controllers on a local cluster, and compares
// what the page of one says with what is true, by other sources than the page has: the
// Lease as kubectl sees it, and the API server.
import { spawn, execFile } from "node:child_process";
import { once } from "node:events";
import { promisify } from "node:util";
import { createServer } from "node:net";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import puppeteer from "puppeteer-core";

const folder = process.argv[2];
const run = promisify(execFile);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const namespace = "page";
const kubeconfig = `${folder}/kubeconfig`;
const env = { ...process.env, KUBECONFIG: kubeconfig, FAULTY_NAMESPACE: namespace };
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const children = [];
const failures = [];

function fail(what) {
  failures.push(what);
  console.log(`FAIL  ${what}`);
}

function start(program, args, more = {}) {
  const child = spawn(program, args, { env: { ...env, ...more }, stdio: ["ignore", "pipe", "pipe"] });
  child.log = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (child.log += data));
  children.push(child);
  return child;
}

async function kubectl(...args) {
  return (await run("bin/kubectl", args, { env })).stdout.trim();
}

// until polls f until it returns something true, and returns how long that took in ms.
async function until(what, limit, f) {
  const began = Date.now();
  for (;;) {
    try {
      if (await f()) return Date.now() - began;
    } catch (error) {
      if (Date.now() - began > limit) throw new Error(`${what}: ${error.message}`);
    }
    if (Date.now() - began > limit) throw new Error(`not within ${limit} ms: ${what}`);
    await sleep(20);
  }
}

function freePort() {
  return new Promise((done) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => done(port));
    });
  });
}

async function replica(name) {
  const port = await freePort();
  const child = start(`${folder}/faulty`, [
    `--kubeconfig=${kubeconfig}`, "--bind-address=127.0.0.1", `--secure-port=${port}`,
    `--leader-elect-resource-namespace=${namespace}`, "--drain-timeout=2s",
    "--controllers=healthy-1,healthy-2,error,panics,needs-crd,returns-early",
  ], { POD_NAME: name, POD_NAMESPACE: namespace, POD_UID: name });
  return { name, child, address: `https://127.0.0.1:${port}` };
}

// row returns the name, the state and the text of a row of the page, read as a person would read it. The page may
// be loading just then.
async function row(page, name) {
  try {
    return await page.evaluate((name) => {
      const head = [...document.querySelectorAll("tbody th")].find((th) => th.firstChild.textContent.trim() === name);
      if (!head) return "";
      const state = head.parentElement.querySelector("b").textContent;
      return [name, state, ...[...head.parentElement.cells].slice(1).map((cell) => cell.innerText.replace(/\s+/g, " "))].join(" | ");
    }, name);
  } catch {
    return "";
  }
}

// shows waits until a row tells of the state and has all the texts, and complains if that takes more than 2 s
// from the moment when it was true.
async function shows(page, name, state, ...texts) {
  let last = "";
  try {
    const took = await until(`${name}: ${state} ${texts}`, 10000, async () => {
      last = (await row(page, name)) || last;
      return last.split(" | ")[1] === state && texts.every((text) => last.includes(text));
    });
    console.log(`${took <= 2000 ? "ok  " : "FAIL"}  ${String(took).padStart(5)} ms until the page says: ${last}`);
    if (took > 2000) failures.push(`${name}: ${state} ${texts} took ${took} ms`);
  } catch (error) {
    fail(`${error.message}; the page says: ${last}`);
  }
}

// inspect runs axe on the page, measures it and takes a screenshot.
async function inspect(browser, address, token, name, { dark, width }) {
  const page = await browser.newPage();
  await page.setExtraHTTPHeaders({ Authorization: `Bearer ${token}` });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: dark ? "dark" : "light" }]);
  await page.setViewport({ width, height: 800, deviceScaleFactor: 1 });
  await page.setJavaScriptEnabled(false);
  const answer = await page.goto(`${address}/controllers?refresh=off`);
  const bytes = (await answer.buffer()).length;
  if (bytes >= 50000) fail(`${name}: ${bytes} bytes, want fewer than 50,000`);
  await page.screenshot({ path: `docs/images/controllers-${name}.png`, fullPage: true, optimizeForSpeed: false });
  const requests = [];
  page.on("request", (request) => requests.push(request.url()));
  await page.setJavaScriptEnabled(true); // for axe alone, which the page's own policy keeps out
  await page.reload();
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  if (overflow > 0) fail(`${name}: it is ${overflow} pixels too wide`);
  const foreign = requests.filter((url) => !url.startsWith(`${address}/controllers`) && !url.endsWith("/favicon.ico"));
  if (foreign.length) fail(`${name}: it loads ${foreign}`);
  await page.evaluate(axe);
  const { violations, passes, incomplete } = await page.evaluate(() => window.axe.run());
  for (const { id, help, nodes } of violations) fail(`${name}: axe ${id}: ${help}: ${nodes[0].html}`);
  for (const { id, help } of incomplete) console.log(`note  ${name}: axe cannot tell: ${id}: ${help}`);
  console.log(`ok    ${name}: ${bytes} bytes, axe: ${passes.length} rules pass, ${violations.length} violations`);
  await page.close();
}

async function main() {
  mkdirSync("docs/images", { recursive: true });
  start("bin/localcluster", ["up", "--data", `${folder}/cluster`, "--kubeconfig", kubeconfig]);
  await until("the cluster is there", 120000, () => kubectl("get", "serviceaccount", "default"));
  await kubectl("create", "namespace", namespace);
  await kubectl("create", "serviceaccount", "viewer");
  await kubectl("create", "clusterrole", "viewer", "--verb=get", "--non-resource-url=/controllers");
  await kubectl("create", "clusterrolebinding", "viewer", "--clusterrole=viewer", "--serviceaccount=default:viewer");
  const token = await kubectl("create", "token", "viewer");
  writeFileSync(`${folder}/token`, token);

  const first = await replica("manager-0");
  await until("the first leads", 20000, () => first.child.log.includes("Became leader"));
  const second = await replica("manager-1");
  const browser = await puppeteer.launch({
    executablePath: process.env.CHROMIUM, acceptInsecureCerts: true, args: ["--no-sandbox", "--disable-dev-shm-usage"],
  });
  const page = await browser.newPage();
  await page.setExtraHTTPHeaders({ Authorization: `Bearer ${token}` });
  await until("the second serves", 20000, () => page.goto(`${second.address}/controllers`));

  console.log("\n==> a standby");
  await shows(page, "default", "standby", "leader is manager-0");
  await shows(page, "needs-crd", "blocked", "faulty.example.com");

  console.log("\n==> during a crash loop and beside a blocked controller");
  await page.goto(`${first.address}/controllers`);
  // A controller that crashes each time runs for a moment in between.
  await shows(page, "error", "backoff", "out of luck");
  await shows(page, "panics", "backoff", "out of my mind");
  await shows(page, "needs-crd", "blocked", "faulty.example.com");
  await shows(page, "returns-early", "completed");
  await shows(page, "healthy-1", "running");
  for (const [scheme, dark] of [["light", false], ["dark", true]]) {
    for (const width of [1280, 400]) await inspect(browser, first.address, token, `${scheme}-${width}`, { dark, width });
  }
  const status = async () => {
    const args = ["status", `--address=${first.address}`, `--address=${second.address}`, `--token-file=${folder}/token`, "--insecure-skip-tls-verify"];
    const { stdout, stderr } = await run("bin/manager", args, { env }).catch((error) => error);
    return stdout + stderr;
  };
  console.log(`\n$ manager status ...\n${await status()}`);

  console.log("==> the blocked controller gets what it waits for");
  writeFileSync(`${folder}/crd.yaml`, JSON.stringify({
    apiVersion: "apiextensions.k8s.io/v1", kind: "CustomResourceDefinition", metadata: { name: "widgets.faulty.example.com" },
    spec: {
      group: "faulty.example.com", scope: "Namespaced", names: { plural: "widgets", singular: "widget", kind: "Widget", listKind: "WidgetList" },
      versions: [{ name: "v1", served: true, storage: true, schema: { openAPIV3Schema: { type: "object", "x-kubernetes-preserve-unknown-fields": true } } }],
    },
  }));
  await kubectl("apply", "-f", `${folder}/crd.yaml`);
  // The manager looks every 4 s: what is true from then on is told by its log.
  await until("it runs", 10000, () => /no longer blocked.*"needs-crd"/.test(first.child.log));
  await shows(page, "needs-crd", "running");

  console.log("\n==> a hand-over");
  await page.goto(`${second.address}/controllers`);
  const holder = start("bin/kubectl", ["get", "lease", "faulty", "-n", namespace, "--watch", "-o", "jsonpath={.spec.holderIdentity}{\"\\n\"}"]);
  await until("kubectl watches the lease", 10000, () => holder.log.includes("manager-0"));
  first.child.kill("SIGTERM");
  let released = false;
  await until("the lease is the second's", 20000, () => {
    released ||= holder.log.trimEnd().split("\n").at(-1) === "";
    return holder.log.includes("manager-1");
  });
  const during = status();
  await shows(page, "default", "leader", "epoch");
  await shows(page, "healthy-1", "running");
  console.log(`\n$ manager status ...     (asked during the hand-over)\n${await during}`);
  await browser.close();
}

async function stop() {
  for (const child of children.toReversed()) {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill("SIGTERM");
      await Promise.race([once(child, "exit"), sleep(15000).then(() => child.kill("SIGKILL"))]);
    }
  }
}

try {
  await main();
} catch (error) {
  fail(error.stack);
  for (const child of children) console.log(`--- ${child.spawnargs.slice(0, 2).join(" ")}\n${child.log.slice(-3000)}`);
} finally {
  await stop();
}
console.log(failures.length ? `\n${failures.length} failures` : "\nThe page says what is true.");
process.exit(failures.length ? 1 : 0);
