// Pictures to try: a photograph where the service has one, and two drawn here.

const WIDTH = 768;
const HEIGHT = 512;
const LABELS = { "portrait.jpg": "Portrait" };

/**
 * What there is to choose from.
 *
 * @param {string[]} photographs names of the service's samples
 * @returns {{label: string, make: () => Promise<File>}[]}
 */
export function samples(photographs) {
  const fetched = photographs.map((name) => ({ label: LABELS[name] ?? name, make: () => fetchFile(name) }));
  const drawn = [
    { label: "Landscape", make: () => drawnFile("landscape.png", landscape) },
    { label: "Lettering", make: () => drawnFile("lettering.png", lettering) },
  ];
  return [...fetched, ...drawn];
}

async function fetchFile(name) {
  const response = await fetch(`playground/${name}`);
  if (!response.ok) throw new Error(`no sample ${name}`);
  const blob = await response.blob();
  return new File([blob], name, { type: blob.type });
}

async function drawnFile(name, paint) {
  const canvas = Object.assign(document.createElement("canvas"), { width: WIDTH, height: HEIGHT });
  paint(canvas.getContext("2d", { alpha: false }));
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  return new File([blob], name, { type: "image/png" });
}

/** Random numbers 0..1 that are the same each time (mulberry32). */
function generator(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** A ridge by midpoint displacement: 1 + 2^levels heights around 0. */
function ridge(random, levels, roughness) {
  let line = [random() - 0.5, random() - 0.5];
  let swing = 1;
  for (let level = 0; level < levels; level++, swing *= roughness) {
    line = line.flatMap((y, i) => (i + 1 < line.length ? [y, (y + line[i + 1]) / 2 + (random() - 0.5) * swing] : [y]));
  }
  return line;
}

/** Evening over mountains, a lake and grass: smooth shades, sharp ridges, fine texture. */
function landscape(context) {
  const random = generator(11);
  const sky = context.createLinearGradient(0, 0, 0, 330);
  for (const [at, colour] of [[0, "#274b7d"], [0.55, "#d98f6f"], [1, "#f7d9a3"]]) sky.addColorStop(at, colour);
  context.fillStyle = sky;
  context.fillRect(0, 0, WIDTH, HEIGHT);
  const sun = context.createRadialGradient(560, 226, 8, 560, 226, 150);
  for (const [at, colour] of [[0, "#fff6da"], [0.14, "#ffe9b0"], [0.2, "#ffdf9a66"], [1, "#ffdf9a00"]]) sun.addColorStop(at, colour);
  context.fillStyle = sun;
  context.fillRect(0, 0, WIDTH, HEIGHT);
  const layers = [[215, 100, "#8d7a93"], [262, 90, "#645f7f"], [306, 70, "#3c4763"]];
  for (const [base, height, colour] of layers) {
    const line = ridge(random, 8, 0.56);
    context.fillStyle = colour;
    context.beginPath();
    context.moveTo(0, HEIGHT);
    line.forEach((y, i) => context.lineTo((i * WIDTH) / (line.length - 1), base - y * height));
    context.lineTo(WIDTH, HEIGHT);
    context.fill();
  }
  const lake = context.createLinearGradient(0, 345, 0, 450);
  lake.addColorStop(0, "#c99c86");
  lake.addColorStop(1, "#3b5676");
  context.fillStyle = lake;
  context.fillRect(0, 345, WIDTH, HEIGHT - 345);
  for (let i = 0; i < 420; i++) {
    const y = 347 + random() ** 1.5 * 100;
    context.fillStyle = random() < 0.5 ? "#f4dcb533" : "#22354f33";
    context.fillRect(random() * WIDTH, y, 10 + random() * 60, 1 + (y - 345) / 60);
  }
  for (let i = 0; i < 5200; i++) {
    const depth = random();
    const [x, y] = [random() * WIDTH, 436 + depth * 90];
    context.strokeStyle = `hsl(${70 + random() * 45} ${28 + random() * 28}% ${12 + random() * 24}%)`;
    context.lineWidth = 0.8 + depth;
    context.beginPath();
    context.moveTo(x, y);
    context.quadraticCurveTo(x + 2, y - 12 * (0.4 + depth), x + (random() - 0.5) * 18, y - 26 * (0.4 + depth));
    context.stroke();
  }
}

/** Letters and lines: what codecs find hard. */
function lettering(context) {
  context.fillStyle = "#f4efe4";
  context.fillRect(0, 0, WIDTH, HEIGHT);
  context.fillStyle = "#b3311e";
  context.fillRect(40, 44, 12, 120);
  context.fillStyle = "#22262b";
  context.font = "700 72px Georgia, 'DejaVu Serif', serif";
  context.fillText("Fine print", 76, 104);
  context.font = "italic 28px Georgia, 'DejaVu Serif', serif";
  context.fillText("what a codec does to edges", 78, 152);
  const text = "Letters are thin, dark and sudden; photographs are seldom any of these. ";
  let y = 206;
  for (const size of [22, 18, 15, 13, 11, 9]) {
    context.font = `${size}px Georgia, 'DejaVu Serif', serif`;
    context.fillText(text.repeat(3).slice(0, Math.floor(860 / size)), 40, y);
    y += size * 1.7;
  }
  for (let i = 0; i < 40; i++) {
    context.fillStyle = `hsl(${i * 9} 65% ${38 + (i % 4) * 10}%)`;
    context.fillRect(40 + i * 17.2, 372, 12, 40);
    context.fillStyle = "#22262b";
    context.fillRect(40 + i * (4 + i * 0.34), 428, 1 + i / 20, 44);
  }
}
