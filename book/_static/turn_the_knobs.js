/* The page Turn the knobs: a step schedule, a cycle and the recorded runs, drawn as SVG. The runs are in
   knobs_data.js, written by `python -m course_utils curves`: RUNS[name] = {about, data, held, training, other}, where
   `training` and `other` hold a curve of accuracies (%) for each seed, and `held` says on what `other` was measured. */
"use strict";
{
  // --- Drawing: a chart in the pixels of the page, so that its letters are as large as those of the text. -----------

  const make = (name, attributes = {}, text = "") => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
    element.textContent = text;
    return element;
  };

  const ticksOf = ([low, high], log) => {
    if (log) {
      const [first, last] = [Math.ceil(Math.log10(low)), Math.floor(Math.log10(high))], every = last - first > 6 ? 2 : 1;
      return Array.from({ length: Math.floor((last - first) / every) + 1 }, (_, i) => 10 ** (last - i * every));
    }
    const rough = (high - low) / 5, unit = 10 ** Math.floor(Math.log10(rough));
    const step = unit * [1, 2, 5, 10].find((factor) => factor * unit >= rough);
    return Array.from({ length: Math.floor(high / step + 1e-9) + 1 }, (_, i) => i * step).filter((tick) => tick >= low);
  };

  // An empty chart; `x` and `y` are ranges. What it gives back draws into it: curves are lists of [x, y].
  const chart = (svg, { x, y, log = false, xLabel, yLabel }) => {
    const width = svg.clientWidth, height = svg.clientHeight, left = 62, right = width - 12, top = 12, bottom = height - 40;
    const scale = (value) => (log ? Math.log10(value) : value);
    const atX = (value) => left + ((value - x[0]) / (x[1] - x[0])) * (right - left);
    const atY = (value) => bottom - ((scale(value) - scale(y[0])) / (scale(y[1]) - scale(y[0]))) * (bottom - top);
    const add = (...given) => svg.appendChild(make(...given));
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.replaceChildren();
    ticksOf(y, log).forEach((tick) => {
      add("path", { d: `M${left} ${atY(tick)}H${right}`, class: "knobs-grid" });
      add("text", { x: left - 6, y: atY(tick) + 4, "text-anchor": "end" }, inWords(tick));
    });
    ticksOf(x).forEach((tick) => add("text", { x: atX(tick), y: bottom + 17, "text-anchor": "middle" }, inWords(tick)));
    add("path", { d: `M${left} ${top}V${bottom}H${right}`, class: "knobs-axis" });
    add("text", { x: (left + right) / 2, y: height - 5, "text-anchor": "middle" }, xLabel);
    add("text", { x: 11, y: (top + bottom) / 2, "text-anchor": "middle", class: "knobs-y" }, yLabel);
    return {
      line: (points, name, style = "") => {
        const d = points.map(([a, b], i) => `${i ? "L" : "M"}${atX(a).toFixed(1)} ${atY(b).toFixed(1)}`).join("");
        add("path", { d, class: name, style });
      },
      band: (from, to, name, label) => { // a share of the width, marked from top to bottom
        if (from >= to) return;
        add("rect", { x: atX(from), y: top, width: atX(to) - atX(from), height: bottom - top, class: name });
        if (atX(to) - atX(from) > 9 * label.length) add("text", { x: atX(from) + 6, y: top + 16, class: name }, label);
      },
      level: (value, label) => {
        add("path", { d: `M${left} ${atY(value)}H${right}`, class: "knobs-level" });
        add("text", { x: right - 4, y: atY(value) - 5, "text-anchor": "end" }, label);
      },
    };
  };

  const POWERS = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };
  const inWords = (value) => { // 0.02, 330, 4.7·10⁻¹⁰
    if (value === 0 || (Math.abs(value) >= 0.001 && Math.abs(value) < 10000)) return String(+value.toPrecision(value < 100 ? 2 : 3));
    const [digits, power] = value.toExponential(1).split("e"), raised = [...String(+power)].map((one) => POWERS[one]).join("");
    return digits === "1.0" ? `10${raised}` : `${+digits}·10${raised}`;
  };

  // --- The sliders of a panel: what they are set to, by name. -------------------------------------------------------

  const SHARES = [0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1]; // of the highest rate, where a cycle may end
  const READ = { // from a slider's place to its value; the others are what they say
    rate: (place) => +(10 ** place).toPrecision(2),
    highest: (place) => +(10 ** place).toPrecision(2),
    end: (place) => SHARES[place],
  };
  const SAY = { end: (share) => (share ? `${inWords(100 * share)} % of peak` : "zero") };

  // Read the sliders, write each value beside its slider, and hand them to `draw`; again at every turn.
  const panel = (name, draw) => {
    const root = document.querySelector(`.knobs-${name}`), sliders = [...root.querySelectorAll("input[type=range]")];
    const svg = root.querySelector("svg"), said = root.querySelector(".knobs-said");
    const turn = () => {
      const values = { log: root.querySelector("input[type=checkbox]")?.checked };
      sliders.forEach((slider) => {
        const key = slider.name, value = (READ[key] ?? Number)(+slider.value);
        values[key] = value;
        const words = slider.nextElementSibling.value = (SAY[key] ?? inWords)(value);
        slider.setAttribute("aria-valuetext", words);
      });
      const words = draw(svg, values);
      if (said.value !== words) said.value = words; // or it is heard again whenever the chart is resized
      svg.setAttribute("aria-label", words);
    };
    root.hidden = false;
    root.addEventListener("input", turn);
    addEventListener("pageshow", turn); // on a way back, some browsers set the sliders after this script has run
    turn();
    new ResizeObserver(turn).observe(svg); // the sidebar changes its width, too
  };

  // --- Session 1: steps. --------------------------------------------------------------------------------------------

  // Half the distance from 0.01 to the next number of float32: a gradient of 1 times less than this is rounded away.
  const NO_CHANGE = 2 ** -31;

  const drawSteps = (svg, { rate, gamma, step, epochs, log }) => {
    const rates = Array.from({ length: epochs }, (_, epoch) => rate * gamma ** Math.floor(epoch / step));
    const corners = rates.flatMap((value, epoch) => [[epoch, value], [epoch + 1, value]]);
    const sum = rates.reduce((one, other) => one + other), dead = rates.filter((value) => value < NO_CHANGE).length;
    let spent = 0, useful = 0; // epochs until 99 % of what the rates add up to is used
    while (spent < 0.99 * sum) spent += rates[useful++];
    const y = log ? [1e-11, 1] : [0, 1.1 * rate]; // what is below the axis is left out
    const { line, band, level } = chart(svg, { x: [0, epochs], y, log, xLabel: "epoch", yLabel: "learning rate" });
    band(Math.min(useful, epochs - dead), epochs - dead, "knobs-late", "the last 1 %");
    band(epochs - dead, epochs, "knobs-dead", "dead");
    if (log) level(NO_CHANGE, "too low to change a weight of 0.01");
    line(corners.filter(([, value]) => value >= y[0]), "knobs-line");
    const last = rates.at(-1), course = last < rate ? `falls from ${inWords(rate)} to` : "stays at";
    return `The rate ${course} ${inWords(last)}. `
      + `The first ${useful} of ${epochs} epochs have 99 % of the way that the weights can go. `
      + (dead ? `From epoch ${epochs - dead + 1} on, ${dead} ${dead > 1 ? "epochs are" : "epoch is"} dead.` : "No epoch is dead.");
  };

  // --- Session 2: a cycle, and what it leaves of the loss on the page One cycle's parabola. -------------------------

  const EPOCHS = 24, BATCHES = 98, START = 0.01; // the assignment's, which begins at a hundredth of the highest rate

  const drawCycle = (svg, { highest, peak, end }) => {
    const corners = [[0, START * highest], [peak, highest], [EPOCHS, end * highest]];
    const rateAt = (epoch) => {
      const [[a, from], [b, to]] = epoch < peak ? corners.slice(0, 2) : corners.slice(1);
      return from + ((epoch - a) / (b - a)) * (to - from);
    };
    // w ← w − rate·(w + noise), begun at 3: the mean and the variance of w, step by step
    let mean = 3, variance = 0;
    for (let i = 0; i < EPOCHS * BATCHES; i++) {
      const rate = rateAt(i / BATCHES);
      mean *= 1 - rate;
      variance = (1 - rate) ** 2 * variance + rate ** 2;
    }
    const { line } = chart(svg, { x: [0, EPOCHS], y: [0, 1.1 * highest], xLabel: "epoch", yLabel: "learning rate" });
    line(corners, "knobs-line");
    return `The rate rises from ${inWords(START * highest)} to ${inWords(highest)} at epoch ${peak}, and `
      + (end < 1 ? `falls to ${inWords(end * highest)}. ` : "stays there. ")
      + `On the noisy parabola it leaves a loss of ${inWords((mean ** 2 + variance) / 2)}.`;
  };

  // --- The recorded runs: a row for each curve, which is its legend, too. -------------------------------------------

  const root = document.querySelector(".knobs-runs"), svg = root.querySelector("svg"), rows = root.querySelector("ul");
  const pattern = root.querySelector("template").content, MOST = 6; // as many as there are colours
  const meanOf = (curves) => curves[0].map((_, epoch) => curves.reduce((sum, one) => sum + one[epoch], 0) / curves.length);
  const points = (curve) => curve.map((value, epoch) => [epoch + 1, value]);

  const addRow = (recipe, which) => {
    const row = pattern.cloneNode(true).querySelector("li"), [names, kinds] = row.querySelectorAll("select");
    const groups = { "CIFAR-100, Session 1": "cifar100", "CIFAR-10, Session 2": "cifar10" };
    names.append(...Object.entries(groups).map(([label, data]) => {
      const group = Object.assign(document.createElement("optgroup"), { label });
      group.append(...Object.keys(RUNS).filter((name) => RUNS[name].data === data).map((name) => new Option(name)));
      return group;
    }));
    names.value = recipe;
    kinds.value = which;
    kinds.dataset.wanted = which; // kept while a recipe without validation is passed
    kinds.addEventListener("change", () => { kinds.dataset.wanted = kinds.value; }); // before the list draws
    row.querySelector("button").addEventListener("click", () => {
      const near = row.nextElementSibling ?? row.previousElementSibling ?? root;
      row.remove();
      drawRuns();
      near.querySelector("button").focus(); // the next Remove, or Add a curve
    });
    rows.append(row);
  };

  const drawRuns = () => {
    const chosen = [...rows.children].map((row, k) => {
      const [names, kinds] = row.querySelectorAll("select"), run = RUNS[names.value];
      kinds.options[1].disabled = !run.other.length;
      kinds.value = run.other.length ? kinds.dataset.wanted : "training";
      kinds.options[1].text = `${run.held} accuracy`;
      const curves = run[kinds.value], mean = meanOf(curves), last = mean.at(-1).toFixed(1);
      const ends = `ends at ${last} %${curves.length > 1 ? `, on average over ${curves.length} runs` : ", one run"}`;
      row.style.setProperty("--line", `var(--knobs-${k + 1})`);
      row.className = `knobs-dash-${k + 1}`;
      const told = row.querySelector("output"), about = `${run.about}; ${ends}`;
      if (told.value !== about) told.value = about;
      const what = `${names.value}, ${kinds.selectedOptions[0].text}`;
      row.querySelector("button").setAttribute("aria-label", `Remove ${what}`);
      return { curves, mean, k, words: `${what}, ${ends}` };
    });
    const longest = Math.max(6, ...chosen.map(({ mean }) => mean.length));
    const highest = Math.min(100, Math.max(10, ...chosen.flatMap(({ curves }) => curves.flat())) + 2);
    const { line } = chart(svg, { x: [1, longest], y: [0, highest], xLabel: "epoch", yLabel: "accuracy (%)" });
    chosen.forEach(({ curves, mean, k }) => {
      const style = `--line: var(--knobs-${k + 1})`;
      if (curves.length > 1) curves.forEach((curve) => line(points(curve), "knobs-seed", style));
      line(points(mean), `knobs-line knobs-dash-${k + 1}`, style);
    });
    svg.setAttribute("aria-label", chosen.map(({ words }) => words).join("; ") || "no curve");
    root.querySelector("[data-add]").disabled = chosen.length >= MOST;
  };

  panel("steps", drawSteps);
  panel("cycle", drawCycle);
  addRow("smallnet-source", "other");
  addRow("smallnet-best", "other");
  root.hidden = false; // only now: without the recorded curves the lines above have stopped
  rows.addEventListener("change", drawRuns);
  root.querySelector("[data-add]").addEventListener("click", ({ target }) => {
    addRow("smallnet-best", "other");
    drawRuns();
    if (target.disabled) rows.lastElementChild.querySelector("select").focus();
  });
  drawRuns();
  new ResizeObserver(drawRuns).observe(svg);
}
