/* The page See it think, and the small version of it on the welcome page: network.js at work on a picture. Their parts
   are marked in the HTML by data-part; the welcome page has only a strip of pictures, the bars and a note. */
"use strict";
{
  const root = document.querySelector(".live");
  const parts = Object.fromEntries([...root.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]));

  const canvasOf = (width, height) => Object.assign(document.createElement("canvas"), { width, height });
  const pen2d = (canvas) => canvas.getContext("2d", { willReadFrequently: true });
  const named = (label) => LIVE.classes[label].replace("_", " ");
  const percent = (share) => (share < 0.005 ? "< 1 %" : share >= 0.995 ? "> 99 %" : `${Math.round(100 * share)} %`);
  const best = (shares, k) => [...shares.keys()].sort((a, b) => shares[b] - shares[a]).slice(0, k);
  const ranges = () => [...parts.patch.querySelectorAll("input")];
  const within = (value) => Math.max(0, Math.min(32, value));
  const aria = (element, name, value) => element.setAttribute(`aria-${name}`, value); // Firefox reflects it since 119

  const sheet = pen2d(canvasOf(32, 32)); // the picture without its patch
  const loaded = {}; // networks by name
  const chosen = { network: "smallnet-best", picture: null, stage: 0, map: 5 };
  let answer, waiting, announcing, comparing, pen = [16, 16];
  let choices = 0; // of pictures: what is chosen later counts, however long a photo takes

  // --- From the picture to the answer. ------------------------------------------------------------------------------

  const refresh = () => { // at most once a frame, however fast a slider moves
    clearTimeout(comparing);
    waiting ??= requestAnimationFrame(() => { waiting = null; show().catch(complain); });
  };

  const tell = (text) => { // seen, and heard
    clearTimeout(announcing);
    parts.note.textContent = parts.status.textContent = text;
  };

  const showInside = (on) => { if (parts.stages) parts.stages.parentElement.style.visibility = on ? "" : "hidden"; };

  const forget = () => { // the answer before is another network's, or another picture's
    answer = undefined;
    parts.bars.replaceChildren();
    parts.networks?.querySelectorAll("output").forEach((said) => { said.textContent = ""; });
    showInside(false);
  };

  const complain = (why) => { // some networks answer with a page of their own where a script was asked for
    console.error(why);
    forget();
    tell("DecompressionStream" in window ? "The network did not arrive. Choose a picture to try again."
      : "The network does not run here. It needs a browser of 2023 or later.");
  };

  const show = async () => {
    const name = chosen.network, shown = parts.picture && withPatch(), truth = LIVE.labels[chosen.picture];
    // Not read back from a canvas where that can be avoided: some browsers add noise to what is read.
    const pixels = untouched() ? LIVE.pixelsOf(chosen.picture) : shown;
    if (parts.caption) parts.caption.textContent = truth === undefined ? "your picture" : `CIFAR-100 says: ${named(truth)}`;
    if (!loaded[name]) {
      forget();
      tell("Loading the network…");
      const network = await LIVE.load(name).catch((why) => { if (name === chosen.network) throw why; });
      if (network) loaded[name] = network;
      return refresh(); // once, with whatever has been chosen meanwhile
    }
    answer = LIVE.think(loaded[name], pixels);
    showBars(answer.probabilities);
    showNote();
    // Later, as a larger network than the chosen one would slow down every move.
    if (parts.networks) comparing = setTimeout(() => { if (answer) compare(pixels); }, 200);
    showInside(true);
    if (parts.stages) showStages();
  };

  // The patch has the training pictures' mean colour: once the picture is normalised, its values are zero.
  const withPatch = () => {
    const picture = pen2d(parts.picture);
    const [x, y, size] = ranges().map((range) => +(range.nextElementSibling.value = range.value));
    picture.drawImage(sheet.canvas, 0, 0);
    picture.fillStyle = `rgb(${LIVE.mean.map((value) => Math.round(255 * value))})`;
    picture.fillRect(Math.floor(x - size / 2), Math.floor(y - size / 2), size, size);
    return picture.getImageData(0, 0, 32, 32).data;
  };

  const showBars = (shares) => {
    const top = best(shares, 5), truth = LIVE.labels[chosen.picture];
    parts.bars.replaceChildren(...top.map((label) => {
      const bar = document.createElement("li"), [name, share] = [named(label), percent(shares[label])];
      bar.append(...[name, share].map((textContent) => Object.assign(document.createElement("span"), { textContent })));
      bar.className = label === truth ? "live-true" : "";
      bar.style.setProperty("--share", shares[label]);
      return bar;
    }));
    clearTimeout(announcing); // a screen reader hears where a slider stops, not where it passes
    announcing = setTimeout(() => { parts.status.textContent = `${named(top[0])}, ${percent(shares[top[0]])}`; }, 400);
  };

  const untouched = () => chosen.picture !== null && !(parts.patch && +ranges()[2].value); // one of the test set's

  const showNote = () => {
    const count = LIVE.counts[chosen.network] ?? LIVE.counts["smallnet-best"];
    const expected = untouched() && LIVE.logits[chosen.network]?.[chosen.picture];
    const apart = expected && Math.max(...expected.map((value, i) => Math.abs(value - answer.logits[i])));
    parts.note.textContent = `${count.toLocaleString("en")} weights, ${Math.ceil(answer.milliseconds)} ms in your browser.`
      + (expected ? ` The 100 scores are PyTorch's to within ${(Math.ceil(1e5 * apart) / 1e5).toFixed(5)}.` : "");
  };

  // Each network that has been loaded says its first answer beside its name.
  const compare = (pixels) => parts.networks.querySelectorAll("label").forEach((label) => {
    const network = loaded[label.querySelector("input").value];
    if (!network) return;
    const { probabilities } = network === loaded[chosen.network] ? answer : LIVE.think(network, pixels);
    const [first] = best(probabilities, 1);
    label.querySelector("output").textContent = `${named(first)}, ${percent(probabilities[first])}`;
  });

  // --- The feature maps: black is zero. -----------------------------------------------------------------------------

  const ANCHORS = [[0, 0, 4], [81, 18, 124], [183, 55, 121], [252, 137, 97], [252, 253, 191]];
  const heat = (share) => {
    const place = Math.min(3.999, 4 * Math.sqrt(share)), i = Math.floor(place); // the root shows weak values too
    return [...ANCHORS[i].map((value, c) => value + (ANCHORS[i + 1][c] - value) * (place - i)), 255];
  };
  const shade = (share) => [0, 0, 0, 225 * (1 - Math.sqrt(share))];

  // Rows of `side` values, each a share of `most`, as a canvas of as many pixels.
  const paint = (side, values, most, colour) => {
    const canvas = canvasOf(side, values.length / side), image = new ImageData(side, values.length / side);
    values.forEach((value, i) => image.data.set(colour(value / (most || 1)), 4 * i));
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  };

  const CELL = 64, STEP = 68; // a map's size in its strip, and the distance to the next
  const strips = parts.stages ? [...parts.stages.querySelectorAll("canvas")] : [];
  const mapOf = ({ values, side }, map) => values.subarray(map * side * side, (map + 1) * side * side);
  const corner = (strip, map) => [STEP * (map % strip.columns), STEP * Math.floor(map / strip.columns)];

  const lay = (k, channels, side) => { // makes room for so many maps, and names them
    const strip = strips[k];
    strip.previousElementSibling.textContent = `Stage ${k + 1}: ${channels} maps of ${side} × ${side}`;
    strip.columns = (side > 4 ? 16 : 32) / (strip.clientWidth < 450 ? 2 : 1);
    strip.width = STEP * strip.columns - STEP + CELL;
    strip.height = STEP * Math.ceil(channels / strip.columns) - STEP + CELL;
  };

  const showStages = () => answer.stages.forEach((maps, k) => {
    const { values, channels, side } = maps, strip = strips[k], context = strip.getContext("2d");
    lay(k, channels, side);
    context.imageSmoothingEnabled = false;
    const all = paint(side, values, Math.max(...values), heat);
    for (let map = 0; map < channels; map++) {
      context.drawImage(all, 0, map * side, side, side, ...corner(strip, map), CELL, CELL);
    }
    strip.map = Math.min((k === chosen.stage ? chosen.map : strip.map) ?? 0, channels - 1); // of a larger network
    const most = Math.max(...mapOf(maps, strip.map));
    const strength = most ? `up to ${most.toFixed(1)}` : "nothing found";
    aria(strip, "valuemax", channels);
    aria(strip, "valuenow", strip.map + 1);
    aria(strip, "valuetext", `Map ${strip.map + 1}, ${strength}`);
    if (k === chosen.stage) showChosen(strip, maps, most, strength);
  });

  // The chosen map framed in its strip and enlarged; and the picture, lit where the map is strong.
  const showChosen = (strip, maps, most, strength) => {
    chosen.map = strip.map;
    const map = mapOf(maps, chosen.map), { side } = maps;
    const frame = Object.assign(strip.getContext("2d"), { lineWidth: 10, strokeStyle: "#3b9cff" });
    frame.strokeRect(...corner(strip, chosen.map), CELL, CELL);
    const [large, lit] = [...parts.closer.querySelectorAll("canvas")].map((canvas) => canvas.getContext("2d"));
    large.imageSmoothingEnabled = lit.imageSmoothingEnabled = false;
    large.drawImage(paint(side, map, most, heat), 0, 0, 256, 256);
    lit.drawImage(parts.picture, 0, 0, 256, 256);
    lit.imageSmoothingEnabled = true;
    lit.drawImage(paint(side, map, most, shade), 0, 0, 256, 256);
    parts.closer.querySelector("p").textContent = `Stage ${chosen.stage + 1}, map ${chosen.map + 1}: ${strength}`;
  };

  const choose = (stage, map) => {
    if (!answer || map < 0 || map >= answer.stages[stage].channels) return;
    if (stage === chosen.stage && map === chosen.map) return;
    Object.assign(chosen, { stage, map });
    showStages();
  };

  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const onArrow = (element, act) => element.addEventListener("keydown", (event) => {
    if (!ARROWS[event.key] || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    act(...ARROWS[event.key], event.shiftKey);
  });

  strips.forEach((strip, k) => {
    const point = ({ offsetX, offsetY }) => {
      const step = strip.clientWidth / strip.columns;
      choose(k, Math.min(strip.columns - 1, Math.floor(offsetX / step)) + strip.columns * Math.floor(offsetY / step));
    };
    strip.addEventListener("pointermove", point);
    strip.addEventListener("pointerdown", point);
    strip.addEventListener("focus", () => { if (answer && k !== chosen.stage) choose(k, strip.map ?? 0); });
    onArrow(strip, (right, down) => choose(k, (strip.map ?? 0) + right + strip.columns * down));
    strip.addEventListener("keydown", (event) => {
      if (!answer || event.ctrlKey || event.metaKey || (event.key !== "Home" && event.key !== "End")) return;
      event.preventDefault();
      choose(k, event.key === "Home" ? 0 : answer.stages[k].channels - 1);
    });
  });

  // --- Where pictures come from: the test set, a file, your hand. ---------------------------------------------------

  const take = (index) => {
    choices += 1;
    chosen.picture = index;
    [...parts.strip.children].forEach((button, i) => aria(button, "pressed", i === index));
    refresh();
  };

  LIVE.pictures.forEach((_, index) => {
    const image = new ImageData(LIVE.pixelsOf(index), 32), canvas = canvasOf(32, 32);
    const again = LIVE.labels.slice(0, index).includes(LIVE.labels[index]);
    const name = named(LIVE.labels[index]) + (again ? ", the second" : "");
    pen2d(canvas).putImageData(image, 0, 0);
    const button = Object.assign(document.createElement("button"), { type: "button", title: name });
    aria(button, "label", name);
    button.append(canvas);
    button.addEventListener("click", () => { sheet.putImageData(image, 0, 0); take(index); });
    parts.strip.append(button);
  });

  const clear = () => {
    ranges()[2].value = 0; // a patch was for the picture before
    sheet.fillStyle = "white";
    sheet.fillRect(0, 0, 32, 32);
    take(null);
  };

  const read = async (file) => { // the middle of a photo, as a square
    const mine = ++choices;
    try {
      const photo = await createImageBitmap(file), { width, height } = photo, side = Math.min(width, height);
      let from = photo, part = [(width - side) / 2, (height - side) / 2, side, side];
      let size = 32; // a small photo is not enlarged first, which would blur it
      while (size < 2048 && 2 * size <= side) size *= 2;
      for (; size >= 32; size /= 2) { // each pixel the mean of four: browsers shrink in different ways
        const half = canvasOf(size, size), context = half.getContext("2d");
        context.imageSmoothingQuality = "high";
        context.drawImage(from, ...part, 0, 0, size, size);
        [from, part] = [half, [0, 0, size, size]];
      }
      photo.close();
      if (mine !== choices) return;
      clear();
      sheet.drawImage(from, 0, 0);
    } catch {
      if (mine === choices) tell("Your browser cannot read this file as a picture.");
    }
  };

  const movePatch = (x, y) => {
    const [across, down, size] = ranges();
    [across.value, down.value] = [x, y];
    if (size.value === "0") size.value = 10;
    refresh();
  };

  const movePen = (x, y, draws) => {
    if (draws) {
      Object.assign(sheet, { lineWidth: 3, lineCap: "round", strokeStyle: parts.colour.value });
      sheet.beginPath();
      sheet.moveTo(...pen);
      sheet.lineTo(x + 0.01, y); // Safari draws no line of no length, which a tap would leave
      sheet.stroke();
      take(null);
    }
    pen = [x, y];
    parts.picture.parentElement.style.cssText = `--left: ${x / 0.32}%; --top: ${y / 0.32}%`;
  };

  const listen = () => {
    const on = (part, event, act) => part.addEventListener(event, act);
    const draws = () => parts.draw.getAttribute("aria-pressed") === "true";
    const point = ({ type, offsetX, offsetY }) => {
      const place = [offsetX, offsetY].map((value) => within((32 * value) / parts.picture.clientWidth));
      if (!draws()) return movePatch(...place.map(Math.round));
      if (type === "pointerdown") movePen(...place, false);
      movePen(...place, true);
    };
    on(parts.picture, "pointerdown", (event) => {
      if (event.button || !event.isPrimary) return; // a right click opens a menu, and a second finger enlarges the page
      parts.picture.setPointerCapture(event.pointerId);
      point(event);
    });
    on(parts.picture, "pointermove", (event) => { if (parts.picture.hasPointerCapture(event.pointerId)) point(event); });
    onArrow(parts.picture, (right, down, shift) => {
      const [x, y] = draws() ? pen : ranges().map((range) => +range.value);
      const place = [within(x + right), within(y + down)];
      if (draws()) movePen(...place, !shift);
      else movePatch(...place);
    });
    on(parts.draw, "click", () => aria(parts.draw, "pressed", !draws()));
    on(parts.blank, "click", () => { clear(); aria(parts.draw, "pressed", true); });
    on(parts.file, "click", () => { parts.file.value = ""; }); // or the same photo again would be no change
    on(parts.file, "change", () => { if (parts.file.files[0]) read(parts.file.files[0]); });
    on(parts.patch, "input", refresh);
    const chooseNetwork = () => { chosen.network = parts.networks.querySelector(":checked").value; refresh(); };
    on(parts.networks, "change", chooseNetwork);
    on(window, "pageshow", chooseNetwork); // on a way back, browsers mark what was marked, some after this script has run
    on(root, "dragover", (event) => event.preventDefault());
    on(root, "drop", (event) => {
      event.preventDefault();
      if (event.dataTransfer.files[0]) read(event.dataTransfer.files[0]);
      else tell("This is no picture file.");
    });
    let width; // which the sidebar changes as well as the window
    new ResizeObserver(() => {
      if (width === parts.stages.clientWidth) return;
      width = parts.stages.clientWidth;
      requestAnimationFrame(() => { if (answer) showStages(); }); // later, as it may change the height that is observed
    }).observe(parts.stages);
  };

  root.hidden = false; // only now: a script that did not arrive has stopped this one above
  if (parts.stages) {
    listen();
    strips.forEach((_, k) => lay(k, 32 << k, 16 >> k)); // SmallNet's, so that the text below stays in its place
    chosen.network = parts.networks.querySelector(":checked").value; // which a reload may have marked
    parts.strip.firstChild.click();
  }
}
