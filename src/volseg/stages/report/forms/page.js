// a slider shows another plane of each layer, a checkbox shows or hides a layer
document.querySelectorAll("figure[data-axis]").forEach(figure => {
  const planes = PLANES[figure.dataset.volume][figure.dataset.axis];
  const slider = figure.querySelector("input"), output = figure.querySelector("output");
  slider.addEventListener("input", () => {
    const k = Number(slider.value), at = planes.positions[k];
    output.textContent = at;
    for (const [layer, pictures] of Object.entries(planes.layers)) {
      const image = figure.querySelector(`img.${layer}`);
      image.src = pictures[k];
      image.alt = image.alt.replace(/= \d+/, `= ${at}`);
    }
  });
});
document.querySelectorAll("input[data-layer]").forEach(box => {
  const show = () => box.closest(".volume").querySelectorAll(`img.${box.dataset.layer}`)
    .forEach(image => { image.hidden = !box.checked; });
  box.addEventListener("change", show);
  show();
});

// volseg view --report serves the page, and what its links lead to
if (location.protocol !== "file:") {
  document.querySelectorAll(".jump").forEach(link => { link.hidden = false; });
}

// surfaces are drawn when they come into view, or are printed
const PALETTE = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"];
const decode = (text, Kind) => new Kind(Uint8Array.from(atob(text), c => c.charCodeAt(0)).buffer);

function drawSpace(place) {
  const { vertices, faces, labels, counts, origin, lengths, unit } = SURFACES[place.dataset.space];
  const flat = decode(vertices, Uint16Array), corners = decode(faces, Uint32Array);
  const names = labels.flatMap((label, k) => Array(counts[k]).fill(label)), count = names.length;
  const [z, y, x] = [0, 1, 2].map(axis => Float32Array.from({ length: count },
    (_, k) => origin[axis] + flat[3 * k + axis] / 65535 * lengths[axis]));
  const [i, j, k] = [0, 1, 2].map(c => Uint32Array.from({ length: corners.length / 3 },
    (_, n) => corners[3 * n + c]));
  const colours = PALETTE.flatMap((colour, n) => [[n / 7, colour], [(n + 1) / 7, colour]]);
  const axis = (name, n, flipped) => ({
    title: { text: `${name} (${unit})` },
    range: flipped ? [origin[n] + lengths[n], origin[n]] : [origin[n], origin[n] + lengths[n]],
  });
  const ratio = n => lengths[n] / Math.max(...lengths);
  const away = Math.max(.8, 1 + .5 * (ratio(0) + ratio(1) + ratio(2) - 2));
  Plotly.newPlot(place, [{
    type: "mesh3d", x, y, z, i, j, k, intensity: Float32Array.from(names, n => n % 7 + .5),
    cmin: 0, cmax: 7, colorscale: colours, showscale: false, flatshading: false,
    lighting: { ambient: .7, diffuse: .5, specular: .1, roughness: .7, fresnel: .1 },
    text: names.map(n => `object ${n}`), hovertemplate: "%{text}<extra></extra>",
  }], {
    margin: { l: 0, r: 0, t: 0, b: 0 },
    scene: {
      aspectmode: "manual", aspectratio: { x: ratio(2), y: ratio(1), z: ratio(0) },
      xaxis: axis("x", 2), yaxis: axis("y", 1, true), zaxis: axis("z", 0, true),
      camera: { eye: { x: -.8 * away, y: -1.1 * away, z: .8 * away } },
    },
  }, { responsive: true, displaylogo: false }).then(() => { place.dataset.drawn = count; });
}

const watcher = new IntersectionObserver(entries => entries.filter(e => e.isIntersecting)
  .forEach(e => { watcher.unobserve(e.target); drawSpace(e.target); }), { rootMargin: "300px" });
document.querySelectorAll(".space").forEach(place => watcher.observe(place));
addEventListener("beforeprint", () =>
  document.querySelectorAll(".space:not([data-drawn])").forEach(drawSpace));
