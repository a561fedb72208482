// Shows the values at the pointer below a curve's legend.
for (const figure of document.querySelectorAll('figure.curve')) {
  const svg = figure.querySelector('svg');
  const output = figure.querySelector('output');
  const data = JSON.parse(figure.querySelector('script').textContent);
  const nearest = (points, step) => points.reduce(
    (best, point) => Math.abs(point[0] - step) < Math.abs(best[0] - step) ? point : best, points[0]);
  svg.addEventListener('pointermove', event => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    const step = data.x0 + (x - data.left) / data.width * (data.x1 - data.x0);
    output.textContent = data.series.map(series => {
      const [at, value] = nearest(series.points, step);
      return `${series.name} ${Number(value.toPrecision(6))} (step ${at})`;
    }).join('   ');
  });
  svg.addEventListener('pointerleave', () => { output.textContent = ''; });
}
