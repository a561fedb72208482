//! Matrix product with a weight, bias and activation fused.

use crate::gradients::{Flow, Gradient};
use crate::host::uninitialised;
use crate::kernels::elementwise;
use crate::kernels::gemm::{Matrix, multiply};
use crate::tape::record;
use crate::{NnError, Result, Value, host};

struct Shape {
    rows: usize,
    inputs: usize,
    outputs: usize,
}

fn check(input: &Value, weight: &Value, bias: Option<&Value>) -> Result<Shape> {
    let &[outputs, inputs] = weight.dims() else {
        return Err(NnError::shape(
            "linear weight",
            "[output, input]",
            weight.dims(),
        ));
    };
    if input.width() != inputs || input.dims().is_empty() {
        return Err(NnError::shape(
            "linear",
            format!("[.., {inputs}]"),
            input.dims(),
        ));
    }
    if let Some(bias) = bias.filter(|bias| bias.dims() != [outputs]) {
        return Err(NnError::shape(
            "linear bias",
            format!("[{outputs}]"),
            bias.dims(),
        ));
    }
    Ok(Shape {
        rows: input.rows(),
        inputs,
        outputs,
    })
}

impl Value {
    /// `self weight^T + bias` over the innermost axis: input `[.., input]`, weight `[output, input]`, bias `[output]`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn linear(&self, weight: &Value, bias: Option<&Value>) -> Result<Value> {
        let Shape {
            rows,
            inputs,
            outputs,
        } = check(self, weight, bias)?;
        let (x, w) = (
            host::slice("linear", self.tensor())?,
            host::slice("linear", weight.tensor())?,
        );
        let mut elements = uninitialised(rows * outputs);
        if let Some(bias) = bias {
            let bias = host::slice("linear", bias.tensor())?;
            elements
                .chunks_exact_mut(outputs)
                .for_each(|row| row.copy_from_slice(&bias));
        }
        let product = (
            Matrix::row_major(&x, rows, inputs),
            Matrix::row_major(&w, outputs, inputs).transposed(),
        );
        multiply(&mut elements, outputs, product.0, product.1, bias.is_some());
        let mut shape = self.dims().to_vec();
        shape[self.dims().len() - 1] = outputs;
        let output = host::tensor(elements, &shape)?;

        let values: Vec<&Value> = [Some(self), Some(weight), bias]
            .into_iter()
            .flatten()
            .collect();
        Ok(record(output, &values, || {
            let (input, weight, has_bias) = (
                self.tensor().clone(),
                weight.tensor().clone(),
                bias.is_some(),
            );
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let dy = host::slice("linear", gradient.tensor())?;
                let dy_matrix = Matrix::row_major(&dy, rows, outputs);
                if flow.wants(0) {
                    let w = host::slice("linear", &weight)?;
                    let mut dx = uninitialised(rows * inputs);
                    multiply(
                        &mut dx,
                        inputs,
                        dy_matrix,
                        Matrix::row_major(&w, outputs, inputs),
                        false,
                    );
                    flow.give_vec(0, dx, input.dims())?;
                }
                if flow.wants(1) {
                    let x = host::slice("linear", &input)?;
                    let mut dw = uninitialised(outputs * inputs);
                    multiply(
                        &mut dw,
                        inputs,
                        dy_matrix.transposed(),
                        Matrix::row_major(&x, rows, inputs),
                        false,
                    );
                    flow.give_vec(1, dw, weight.dims())?;
                }
                if has_bias && flow.wants(2) {
                    flow.give_vec(2, elementwise::sum_rows(&dy, outputs), &[outputs])?;
                }
                Ok(())
            }
        }))
    }
}
