/* The forward pass of the course's two small networks in plain JavaScript; see_it_think.js shows it at work. The weights
   are in files of their own (network_*.js, written by `python -m course_utils live`), loaded when they are needed.

   A "tensor" here is {values, channels, side}: `channels` square maps of side × side values, one map after the other.
   A layer is made in two steps: conv(3, 32) says what it is, and a call with `next` gives it its weights.
   next(n, fresh) hands out the next n weights; an untrained network draws each of them from `fresh`. */
"use strict";
{
  // --- The layers. -----------------------------------------------------------------------------------------------

  const tensor = (channels, side) => ({ values: new Float32Array(channels * side * side), channels, side });
  const uniform = (inputs) => () => (2 * random() - 1) / Math.sqrt(inputs); // PyTorch's start for conv and dense

  // A 3×3 convolution: each value is a bias plus, for every input map, nine weights times
  // the nine values around its place.
  const conv = (channels, filters, bias = true) => (next) => {
    const weight = next(filters * channels * 9, uniform(channels * 9));
    const start = bias ? next(filters, uniform(channels * 9)) : new Float32Array(filters);
    return (x) => {
      const { side } = x, row = side + 2, padded = pad(x), y = tensor(filters, side);
      for (let f = 0, k = 0; f < filters; f++) {
        const map = y.values.subarray(f * side * side, (f + 1) * side * side).fill(start[f]);
        for (let c = 0; c < channels; c++, k += 9) {
          const [w1, w2, w3, w4, w5, w6, w7, w8, w9] = weight.subarray(k, k + 9);
          for (let top = 0, out = 0; top < side; top++) {
            let p = (c * row + top) * row; // where the first of the window's three rows begins
            for (let left = 0; left < side; left++, p++, out++) {
              const q = p + row, r = q + row;
              map[out] += w1 * padded[p] + w2 * padded[p + 1] + w3 * padded[p + 2]
                + w4 * padded[q] + w5 * padded[q + 1] + w6 * padded[q + 2]
                + w7 * padded[r] + w8 * padded[r + 1] + w9 * padded[r + 2];
            }
          }
        }
      }
      return y;
    };
  };

  // A border of zeros around each map, so that a convolution keeps its size.
  const pad = ({ values, channels, side }) => {
    const row = side + 2, padded = new Float32Array(channels * row * row);
    for (let c = 0; c < channels; c++) {
      for (let top = 0; top < side; top++) {
        const from = (c * side + top) * side;
        padded.set(values.subarray(from, from + side), (c * row + top + 1) * row + 1);
      }
    }
    return padded;
  };

  // Batch norm in use: each map times a number, plus a number, from what training saw of the map's mean and variance.
  const norm = (channels) => (next) => {
    const [gamma, beta, mean, variance] = [1, 0, 0, 1].map((fresh) => next(channels, () => fresh));
    const scale = gamma.map((value, c) => value / Math.sqrt(variance[c] + 1e-5));
    const shift = beta.map((value, c) => value - mean[c] * scale[c]);
    return (x) => {
      const area = x.side * x.side;
      return { ...x, values: x.values.map((value, i) => value * scale[(i / area) | 0] + shift[(i / area) | 0]) };
    };
  };

  const relu = () => (x) => ({ ...x, values: x.values.map((value) => (value > 0 ? value : 0)) });

  // Max pooling: of each window of size × size values, the largest.
  const pool = (size) => () => (x) => {
    const y = tensor(x.channels, x.side / size);
    y.values.fill(-Infinity);
    for (let c = 0, i = 0; c < x.channels; c++) {
      for (let top = 0; top < x.side; top++) {
        const row = (c * y.side + ((top / size) | 0)) * y.side;
        for (let left = 0; left < x.side; left++, i++) {
          const out = row + ((left / size) | 0);
          if (x.values[i] > y.values[out]) y.values[out] = x.values[i];
        }
      }
    }
    return y;
  };

  // A dense layer: an output is a bias plus every input times a weight of its own.
  const dense = (inputs, outputs) => (next) => {
    const weight = next(outputs * inputs, uniform(inputs)), bias = next(outputs, uniform(inputs));
    return (x) => {
      const y = tensor(outputs, 1);
      for (let out = 0, k = 0; out < outputs; out++) {
        let sum = bias[out];
        for (let i = 0; i < inputs; i++, k++) sum += weight[k] * x.values[i];
        y.values[out] = sum;
      }
      return y;
    };
  };

  // One layer after the other. `seen` collects what leaves the stages.
  const sequence = (...layers) => (next) => {
    const made = layers.map((layer) => layer(next));
    return (x, seen) => made.reduce((value, layer) => layer(value, seen), x);
  };
  const stage = (...layers) => (next) => {
    const run = sequence(...layers)(next);
    return (x, seen) => { const y = run(x); seen.push(y); return y; };
  };
  // Session 2's idea: what the layers find is added to what they were given.
  const residual = (...layers) => (next) => {
    const branch = sequence(...layers)(next);
    return (x) => {
      const found = branch(x).values;
      return { ...x, values: x.values.map((value, i) => value + found[i]) };
    };
  };

  // --- The networks, layer for layer those of course_utils/models.py. ----------------------------------------------

  const smallNet = sequence(
    stage(conv(3, 32), norm(32), pool(2), relu),
    stage(conv(32, 64), norm(64), pool(2), relu),
    stage(conv(64, 128), norm(128), pool(2), relu),
    dense(2048, 420), relu, dense(420, 100),
  );
  const keep = (n) => [conv(n, n, false), norm(n), relu]; // as many maps, as large
  const shrink = (from, to) => [conv(from, to, false), pool(2), norm(to), relu]; // more maps, half as large
  const budgetNet = sequence(
    conv(3, 32, false), norm(32), relu,
    stage(...shrink(32, 64), residual(...keep(64), ...keep(64))),
    stage(...shrink(64, 96), residual(...keep(96), ...keep(96))),
    stage(...shrink(96, 160), residual(...keep(160), ...keep(160))),
    pool(4), dense(160, 100),
  );
  const ARCHITECTURES = { "smallnet-best": smallNet, budgetnet: budgetNet, untrained: smallNet };

  // Pixels as ImageData has them (red, green, blue, opacity, from 0 to 255) as the networks were trained to take them.
  const normalise = (pixels) => {
    const x = tensor(3, 32);
    for (let c = 0; c < 3; c++) {
      for (let i = 0; i < 1024; i++) x.values[c * 1024 + i] = (pixels[4 * i + c] / 255 - LIVE.mean[c]) / LIVE.std[c];
    }
    return x;
  };

  const think = (network, pixels) => {
    const stages = [], began = performance.now();
    const logits = network(normalise(pixels), stages).values;
    return { logits, probabilities: softmax(logits), stages, milliseconds: performance.now() - began };
  };

  const softmax = (logits) => {
    const largest = Math.max(...logits), powers = Array.from(logits, (value) => Math.exp(value - largest));
    const sum = powers.reduce((one, other) => one + other);
    return powers.map((power) => power / sum);
  };

  // --- Weights: half-precision numbers, all high bytes and then all low bytes, deflated, in base64. -----------------

  const here = document.currentScript.src, promised = {};
  // A promise of the network, the same at each call; after a failure the next call tries again.
  const load = (name) => (promised[name] ??= make(name).catch((why) => { delete promised[name]; throw why; }));

  const make = async (name) => {
    if (name === "untrained") return ARCHITECTURES[name]((n, fresh) => new Float32Array(n).map(fresh));
    await new Promise((done, failed) => {
      const script = Object.assign(document.createElement("script"), { onload: done, onerror: failed });
      script.src = new URL(`network_${name}.js`, here);
      document.head.append(script);
    });
    const packed = new Blob([bytesOf(LIVE.weights[name])]).stream().pipeThrough(new DecompressionStream("deflate"));
    const bytes = new Uint8Array(await new Response(packed).arrayBuffer()), count = bytes.length / 2;
    const numbers = new Float32Array(count).map((_, i) => half((bytes[i] << 8) | bytes[count + i]));
    let at = 0;
    return ARCHITECTURES[name]((n) => numbers.subarray(at, (at += n)));
  };

  const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

  // One bit for the sign, five for the exponent, ten for the fraction.
  const half = (bits) => {
    const exponent = (bits >> 10) & 31, fraction = (bits & 1023) / 1024;
    return (bits >> 15 ? -1 : 1) * (exponent ? 2 ** (exponent - 15) * (1 + fraction) : 2 ** -14 * fraction);
  };

  let seed = 1; // the same untrained network for everyone: mulberry32, a small random generator
  const random = () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };

  const pixelsOf = (index) => {
    const rgb = bytesOf(LIVE.pictures[index]), pixels = new Uint8ClampedArray(4096).fill(255);
    for (let i = 0; i < 1024; i++) pixels.set(rgb.subarray(3 * i, 3 * i + 3), 4 * i);
    return pixels;
  };

  Object.assign(LIVE, { load, think, pixelsOf }); // for the page, and for you in the browser's console
}
