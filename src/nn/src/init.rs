//! Initial values of parameters: PyTorch's defaults, drawn from a stream keyed by the parameter's name.

use crate::random::RngKey;
use crate::{NnError, ParameterId, Parameters, Result, host};

/// A distribution to draw initial weights from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// All elements equal.
    Constant(f32),
    /// Standard normal times a deviation.
    Normal(f32),
    /// Uniform between minus and plus a bound.
    Uniform(f32),
}

impl Init {
    /// PyTorch's default for weights and biases of linear layers and convolutions: uniform up to 1 / sqrt(fan in).
    pub fn default_for(fan_in: usize) -> Self {
        Self::Uniform(1.0 / (fan_in.max(1) as f32).sqrt())
    }

    /// Kaiming normal for ReLU (He et al., arXiv 1502.01852).
    pub fn kaiming_normal(fan_in: usize) -> Self {
        Self::Normal((2.0 / fan_in.max(1) as f32).sqrt())
    }

    /// Xavier uniform (Glorot and Bengio, 2010).
    pub fn xavier_uniform(fan_in: usize, fan_out: usize) -> Self {
        Self::Uniform((6.0 / (fan_in + fan_out).max(1) as f32).sqrt())
    }

    pub(crate) fn draw(self, rng_key: RngKey, count: usize) -> Vec<f32> {
        match self {
            Init::Constant(value) => vec![value; count],
            Init::Normal(deviation) => rng_key.normals(count).into_iter().map(|x| x * deviation).collect(),
            Init::Uniform(bound) => rng_key.uniforms(count).into_iter().map(|x| (2.0 * x - 1.0) * bound).collect(),
        }
    }
}

/// Registers the parameters of a model under nested names, as PyTorch modules do.
#[derive(Debug)]
pub struct Builder<'a> {
    parameters: &'a mut Parameters,
    rng_key: RngKey,
    prefix: String,
    /// False if parameters get a shape only.
    fills: bool,
}

impl<'a> Builder<'a> {
    /// Registers into `parameters`, drawing initial values from `draw` and each parameter's full name.
    pub fn new(parameters: &'a mut Parameters, rng_key: RngKey) -> Self {
        Self { parameters, rng_key, prefix: String::new(), fills: true }
    }

    /// Returns a builder for the module `name` inside of this one.
    pub fn scope(&mut self, name: impl std::fmt::Display) -> Builder<'_> {
        let prefix = format!("{}{name}.", self.prefix);
        Builder { parameters: self.parameters, rng_key: self.rng_key, prefix, fills: self.fills }
    }

    /// Makes this builder register frozen parameters without elements, which are loaded before they are used: for networks whose weights
    /// come from files.
    #[must_use]
    pub fn without_values(self) -> Self {
        Self { fills: false, ..self }
    }

    /// Returns a builder for another part of the same module.
    pub fn scope_here(&mut self) -> Builder<'_> {
        Builder { parameters: self.parameters, rng_key: self.rng_key, prefix: self.prefix.clone(), fills: self.fills }
    }

    /// Registers the weight `[output, input]` of a linear layer, which can have adapters.
    ///
    /// # Errors
    /// When the name is taken.
    pub(crate) fn add_linear(&mut self, shape: [usize; 2], init: Init) -> Result<ParameterId> {
        let id = self.add("weight", &shape, init)?;
        self.parameters.mark_linear(id);
        Ok(id)
    }

    /// Registers a buffer: a frozen parameter with the given elements.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn add_buffer(&mut self, name: &str, elements: Vec<f32>, shape: &[usize]) -> Result<ParameterId> {
        let name = format!("{}{name}", self.prefix);
        if !self.fills {
            return self.parameters.add_unfilled(name, shape);
        }
        let id = self.parameters.add(name, host::tensor(elements, shape)?)?;
        self.parameters.set_trainable(id, false);
        Ok(id)
    }

    /// Registers a parameter.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn add(&mut self, name: &str, shape: &[usize], init: Init) -> Result<ParameterId> {
        let name = format!("{}{name}", self.prefix);
        let count = shape.iter().try_fold(1usize, |count, axis| count.checked_mul(*axis));
        let count = count.filter(|count| *count < 1 << 40);
        let count = count.ok_or_else(|| NnError::invalid("parameter shape", format!("{shape:?} for `{name}`")))?;
        if !self.fills {
            return self.parameters.add_unfilled(name, shape);
        }
        let elements = init.draw(self.rng_key.purpose(&name), count);
        self.parameters.add(name, host::tensor(elements, shape)?)
    }
}
