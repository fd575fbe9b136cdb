// Photographs to try.

const LABELS = {
  "astronaut.jpg": "Astronaut",
  "cat.jpg": "Cat",
  "coffee.jpg": "Coffee",
  "portrait.jpg": "Portrait",
  "rocket.jpg": "Rocket",
};

/**
 * What there is to choose from.
 *
 * @param {string[]} names of the service's samples
 * @returns {{label: string, make: () => Promise<File>}[]}
 */
export function samples(names) {
  return names.map((name) => ({ label: LABELS[name] ?? name, make: () => fetchFile(name) }));
}

async function fetchFile(name) {
  const response = await fetch(`playground/${name}`);
  if (!response.ok) throw new Error(`no sample ${name}`);
  const blob = await response.blob();
  return new File([blob], name, { type: blob.type });
}
