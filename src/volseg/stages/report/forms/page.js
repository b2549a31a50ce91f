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
