// The run under way, kept over a reload: its job and the files it belongs to. One at a time; a lost store loses nothing else.

const DATABASE = "cdc-playground";
const STORE = "run";
const KEY = "current";
const KEPT_MS = 3600e3; // as long as the service keeps a result

function open() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(DATABASE, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE);
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

async function transact(mode, act) {
  const database = await open();
  try {
    return await new Promise((resolve, reject) => {
      const transaction = database.transaction(STORE, mode);
      const request = act(transaction.objectStore(STORE));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = transaction.onerror = () => reject(transaction.error);
    });
  } finally {
    database.close();
  }
}

/** Keep a run. @param {{job: string, original: File, file: Blob, encoded: [string, string][] | null, decodeOnly: boolean}} run */
export async function keepRun(run) {
  await transact("readwrite", (store) => store.put({ ...run, at: Date.now() }, KEY)).catch(() => {});
}

/** The run that was under way when the page was left, null for none. */
export async function keptRun() {
  const run = await transact("readonly", (store) => store.get(KEY)).catch(() => null);
  return run && Date.now() - run.at < KEPT_MS ? run : null;
}

/** Forget it. */
export async function forgetRun() {
  await transact("readwrite", (store) => store.delete(KEY)).catch(() => {});
}
