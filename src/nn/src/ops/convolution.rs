//! One-dimensional convolution, channels innermost.

use crate::gradients::{Flow, Gradient};
use crate::kernels::convolution::{self as kernel, Geometry, Layout};
use crate::ops::linear::finish;
use crate::ops::operation::{Operation, apply};
use crate::ops::row_map::{Key, RowMap, matrix, sum_rows, swap};
use crate::tape::{precision, record};
use crate::{Activation, NnError, Ragged, Result, Value, host};
use candle_core::Tensor;
use std::sync::Arc;

/// Settings of a convolution.
#[derive(Debug, Clone, Copy)]
pub struct Convolution {
    /// Distance between windows.
    pub stride: usize,
    /// Distance between taps.
    pub dilation: usize,
    /// Zeros before and after each item.
    pub padding: [usize; 2],
}

impl Default for Convolution {
    fn default() -> Self {
        Self { stride: 1, dilation: 1, padding: [0, 0] }
    }
}

impl Convolution {
    /// A convolution whose output frames see only their own and earlier input frames; the number of frames stays the same.
    pub fn causal(kernel: usize) -> Self {
        Self { padding: [kernel.saturating_sub(1), 0], ..Self::default() }
    }
}

impl Value {
    /// Convolves each item over time: input `[item, time, input]`, weight `[output, input, tap]` in PyTorch's layout, bias
    /// `[output]`; returns `[item, time', output]`.
    ///
    /// With `lengths`, frames of an item beyond its length count as zero and get no gradient. This equals the product with a mask that
    /// the public implementations compute before each convolution.
    ///
    /// # Errors
    /// When the shapes do not fit or the input is shorter than the kernel.
    pub fn conv1d(
        &self,
        weight: &Value,
        bias: Option<&Value>,
        settings: Convolution,
        lengths: Option<&[usize]>,
    ) -> Result<Value> {
        let &[items, time, _] = self.dims() else {
            return Err(NnError::shape("conv1d", "[item, time, channel]", self.dims()));
        };
        let whole = vec![time; items];
        let valid = Ragged::padded(lengths.unwrap_or(&whole), time)?;
        if valid.len() != items {
            return Err(NnError::invalid("conv1d", format!("{} lengths for {items} items", valid.len())));
        }
        let geometry = geometry(self, weight, bias, settings, time)?;
        let out_time = geometry.output_length(time);
        let layout = Layout {
            valid,
            whole: Ragged::padded(&whole, time)?,
            output: Ragged::padded(&vec![out_time; items], out_time)?,
        };
        convolve(self, weight, bias, geometry, layout, &[items, out_time, geometry.outputs])
    }

    /// Like [`conv1d`](Self::conv1d), on items without padding between them: maps `[row, input]` to `[row', output]`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn conv1d_packed(
        &self,
        weight: &Value,
        bias: Option<&Value>,
        settings: Convolution,
        items: &Ragged,
    ) -> Result<Value> {
        if self.dims().len() != 2 || self.rows() != items.total() {
            return Err(NnError::shape("conv1d", format!("[{}, channel]", items.total()), self.dims()));
        }
        let shortest = items.lengths().into_iter().min().unwrap_or(0);
        let geometry = geometry(self, weight, bias, settings, shortest)?;
        let lengths: Vec<usize> = items.lengths().iter().map(|length| geometry.output_length(*length)).collect();
        let output = Ragged::packed(&lengths);
        let shape = [output.total(), geometry.outputs];
        convolve(self, weight, bias, geometry, Layout { valid: items.clone(), whole: items.clone(), output }, &shape)
    }
}

fn geometry(
    input: &Value,
    weight: &Value,
    bias: Option<&Value>,
    settings: Convolution,
    shortest: usize,
) -> Result<Geometry> {
    let &[outputs, inputs, kernel] = weight.dims() else {
        return Err(NnError::shape("conv1d weight", "[output, input, tap]", weight.dims()));
    };
    if input.width() != inputs {
        return Err(NnError::shape("conv1d", format!("[.., {inputs}]"), input.dims()));
    }
    if let Some(bias) = bias.filter(|bias| bias.dims() != [outputs]) {
        return Err(NnError::shape("conv1d bias", format!("[{outputs}]"), bias.dims()));
    }
    let values: Vec<&Value> = [Some(input), Some(weight), bias].into_iter().flatten().collect();
    let (Convolution { stride, dilation, padding }, precision) = (settings, precision(&values));
    if stride == 0 || dilation == 0 || kernel == 0 || inputs == 0 {
        return Err(NnError::invalid("conv1d", "kernel, stride, dilation and channels must be at least 1"));
    }
    let geometry = Geometry { inputs, outputs, kernel, stride, dilation, padding, precision };
    if geometry.output_length(shortest) == 0 {
        let message = format!("an item of {shortest} frames is shorter than the kernel of {kernel} taps");
        return Err(NnError::invalid("conv1d", message));
    }
    Ok(geometry)
}

fn convolve(
    input: &Value,
    weight: &Value,
    bias: Option<&Value>,
    geometry: Geometry,
    layout: Layout,
    shape: &[usize],
) -> Result<Value> {
    let values: Vec<&Value> = [Some(input), Some(weight), bias].into_iter().flatten().collect();
    apply(Convolve { geometry, layout, shape: shape.to_vec() }, &values)
}

/// A convolution; inputs are `x`, weight and an optional bias.
struct Convolve {
    geometry: Geometry,
    layout: Layout,
    shape: Vec<usize>,
}

impl Convolve {
    /// The input row that each tap of each output row reads.
    fn windows(&self) -> Result<Arc<RowMap>> {
        let key = Key::Windows(self.geometry, self.layout.output.total());
        self.layout.valid.cache().map(key, || self.find_windows())
    }

    fn find_windows(&self) -> Result<RowMap> {
        let Geometry { kernel, stride, dilation, padding, .. } = self.geometry;
        let Layout { valid, whole, output } = &self.layout;
        let mut rows = vec![None; output.total() * kernel];
        for ((output, valid), whole) in output.ranges().iter().zip(valid.ranges()).zip(whole.ranges()) {
            for (index, row) in output.clone().enumerate() {
                for tap in 0..kernel {
                    let at = (index * stride + tap * dilation).checked_sub(padding[0]);
                    let seen = at.filter(|at| *at < valid.len());
                    rows[row * kernel + tap] = seen.map(|at| whole.start + at);
                }
            }
        }
        RowMap::new(rows.into_iter(), whole.total())
    }

    /// The row of `windows` that each tap of each input row is read by.
    fn readers(&self) -> Result<Arc<RowMap>> {
        let key = Key::Readers(self.geometry, self.layout.output.total());
        let windows = self.windows()?;
        self.layout.valid.cache().map(key, || Ok(windows.readers(self.geometry.kernel)))
    }

    /// Returns whether windows have their taps innermost, like the weight. The CUDA kernels do; compositions gather whole rows, so taps
    /// come before channels.
    fn taps_innermost(&self, input: &Tensor) -> bool {
        #[cfg(feature = "cuda")]
        return self.geometry.kernel > 1 && crate::cuda::rows::serves(input) && self.layout.output.total() > 0;
        #[cfg(not(feature = "cuda"))]
        {
            let _ = input;
            false
        }
    }

    /// Reshapes the weight `[output, input, tap]` to `[output, element of a window]`.
    fn taps(&self, weight: &Tensor, innermost: bool) -> Result<Tensor> {
        let Geometry { inputs, outputs, kernel, .. } = self.geometry;
        if innermost {
            return Ok(weight.reshape((outputs, inputs * kernel))?);
        }
        swap(weight, [inputs, kernel, 1], &[outputs, kernel * inputs])
    }

    /// Gathers the window of each output row, `[row', tap x input]` or `[row', input x tap]`.
    fn unfold(&self, input: &Tensor, innermost: bool) -> Result<Tensor> {
        let Geometry { inputs, kernel, .. } = self.geometry;
        let windows = self.windows()?;
        #[cfg(feature = "cuda")]
        if innermost {
            return crate::cuda::rows::unfold(&matrix(input)?, &windows.indices(input.device())?, kernel);
        }
        let _ = innermost;
        let seen = windows.gather(&matrix(input)?)?;
        Ok(seen.reshape((self.layout.output.total(), kernel * inputs))?)
    }

    /// The transpose of [`unfold`](Self::unfold), `[row, input]`.
    fn fold(&self, seen: &Tensor, innermost: bool) -> Result<Tensor> {
        let Geometry { inputs, kernel, .. } = self.geometry;
        let readers = self.readers()?;
        #[cfg(feature = "cuda")]
        if innermost {
            return crate::cuda::rows::fold(seen, &readers.indices(seen.device())?, kernel);
        }
        let _ = innermost;
        readers.gather_sums(&seen.reshape((self.layout.output.total() * kernel, inputs))?, kernel)
    }
}

impl Operation for Convolve {
    type Saved = (Tensor, Tensor, bool);

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, Self::Saved)> {
        let (input, weight) = (&inputs[0], &inputs[1]);
        let innermost = self.taps_innermost(input);
        let product = self.unfold(input, innermost)?.matmul(&self.taps(weight, innermost)?.t()?)?;
        let (output, _) = finish(product, inputs.get(2), None, Activation::Identity)?;
        Ok((output.reshape(self.shape.as_slice())?, (input.clone(), weight.clone(), inputs.len() == 3)))
    }

    fn backward(self, saved: Self::Saved, gradient: &Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let (input, weight, has_bias) = saved;
        let Geometry { inputs, outputs, kernel, .. } = self.geometry;
        let (dy, innermost) = (matrix(gradient)?, self.taps_innermost(&input));
        let mut gradients = vec![None; 3];
        if needs[0] {
            let seen = dy.matmul(&self.taps(&weight, innermost)?)?;
            gradients[0] = Some(self.fold(&seen, innermost)?.reshape(input.dims())?);
        }
        if needs[1] {
            let product = dy.t()?.matmul(&self.unfold(&input, innermost)?)?;
            let shape = [outputs, inputs, kernel];
            gradients[1] =
                Some(if innermost { product.reshape(&shape)? } else { swap(&product, [kernel, inputs, 1], &shape)? });
        }
        if has_bias && needs[2] {
            gradients[2] = Some(sum_rows(&dy)?);
        }
        gradients.truncate(needs.len());
        Ok(gradients)
    }

    fn fused(self, inputs: &[&Value]) -> Result<Value> {
        let Self { geometry, layout, shape } = self;
        let (input, weight, bias) = (inputs[0], inputs[1], inputs.get(2));
        let taps = kernel::taps_outermost(&host::slice("conv1d", weight.tensor())?, &geometry);
        let offset = bias.map(|bias| host::slice("conv1d", bias.tensor())).transpose()?;
        let x = host::slice("conv1d", input.tensor())?;
        let out = kernel::forward(&x, &taps, offset.as_deref(), &geometry, &layout);
        let output = host::tensor(out, &shape)?;
        Ok(record(output, inputs, || {
            let (input, weight, has_bias) = (input.save_for(weight), weight.tensor().clone(), bias.is_some());
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let dy = host::slice("conv1d", gradient.tensor())?;
                if flow.wants(0) {
                    // Reordered again instead of saved, which would hold a second copy of every weight until the backward pass.
                    let taps = kernel::taps_outermost(&host::slice("conv1d", &weight)?, &geometry);
                    let dx = kernel::backward_input(&dy, &taps, &geometry, &layout);
                    flow.give_vec(0, dx, input.dims())?;
                }
                if flow.wants(1) {
                    let x = input.tensor()?;
                    let x = host::slice("conv1d", &x)?;
                    let dw = kernel::backward_weight(&x, &dy, &geometry, &layout);
                    flow.give_vec(1, dw, weight.dims())?;
                }
                if has_bias && flow.wants(2) {
                    let db = kernel::backward_bias(&dy, geometry.outputs, &layout.output);
                    flow.give_vec(2, db, &[geometry.outputs])?;
                }
                Ok(())
            }
        }))
    }
}
