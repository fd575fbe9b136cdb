/** onnxruntime-web, loaded when it is first needed: WebGPU where it is there and wanted, else WASM. */

import type * as Ort from "onnxruntime-web";

export type Device = "auto" | "wasm" | "webgpu";

export interface RuntimeOptions {
  /** "auto" takes WebGPU where the browser has it. Default "wasm": the same pixels everywhere, and a smaller download. */
  readonly device?: Device;
  /** Threads of WASM; they need a page that is cross-origin isolated. Default: what the machine has, at most 8. */
  readonly threads?: number;
  /** Where onnxruntime's own files lie, with a slash at the end; default: beside the script. */
  readonly runtimePath?: string;
}

/** A graph in a runtime. */
export interface Graph {
  run(feeds: Record<string, { data: Float32Array; shape: number[] }>, outputs: string[]): Promise<Output[]>;
}

export interface Output {
  readonly data: Float32Array;
  readonly shape: readonly number[];
}

interface Gpu {
  readonly gpu?: { requestAdapter(): Promise<unknown> };
}

let loaded: Promise<{ ort: typeof Ort; device: "wasm" | "webgpu" }> | undefined;

/** Load the runtime, once a page; options of a later call have no effect. */
function runtime(options: RuntimeOptions): Promise<{ ort: typeof Ort; device: "wasm" | "webgpu" }> {
  loaded ??= (async () => {
    const wanted = options.device ?? "wasm";
    const gpu = wanted !== "wasm" && (await hasGpu());
    const ort = await load(gpu);
    const cores = (globalThis as { navigator?: { hardwareConcurrency?: number } }).navigator?.hardwareConcurrency ?? 1;
    const isolated = (globalThis as { crossOriginIsolated?: boolean }).crossOriginIsolated !== false;
    ort.env.wasm.numThreads = isolated ? (options.threads ?? Math.min(8, cores)) : 1;
    ort.env.logLevel = "error";
    if (options.runtimePath !== undefined) ort.env.wasm.wasmPaths = options.runtimePath;
    return { ort, device: gpu ? "webgpu" : "wasm" };
  })();
  return loaded;
}

async function load(gpu: boolean): Promise<typeof Ort> {
  const node: string = "onnxruntime-web"; // a variable, so that bundlers leave it alone
  if ("process" in globalThis && !("document" in globalThis) && !("WorkerGlobalScope" in globalThis)) {
    return (await import(node)) as typeof Ort;
  }
  return (gpu ? await import("onnxruntime-web/webgpu") : await import("onnxruntime-web/wasm")) as typeof Ort;
}

async function hasGpu(): Promise<boolean> {
  try {
    const { gpu } = (globalThis as { navigator?: Gpu }).navigator ?? {};
    return gpu !== undefined && (await gpu.requestAdapter()) !== null;
  } catch {
    return false;
  }
}

/** Make a graph ready to run. */
export async function loadGraph(model: Uint8Array, options: RuntimeOptions): Promise<Graph> {
  const { ort, device } = await runtime(options);
  const session = await ort.InferenceSession.create(model, {
    executionProviders: [device],
    graphOptimizationLevel: "all",
  });
  return {
    async run(feeds, outputs) {
      const tensors = Object.entries(feeds).map(([name, { data, shape }]) => [name, new ort.Tensor("float32", data, shape)]);
      const made = await session.run(Object.fromEntries(tensors) as Record<string, Ort.Tensor>, outputs);
      return outputs.map((name) => ({ data: made[name].data as Float32Array, shape: made[name].dims }));
    },
  };
}
