//! The encoder from tokens to mel frames, which is one of two networks.

mod conformer;
mod pre_lookahead;

use super::rows::Rows;
use super::{FlowConfig, Result};
use conformer::Conformer;
use flowmill_nn::init::Builder;
use flowmill_nn::{Context, Ragged, Value};
use pre_lookahead::Repeated;

/// The numbers of tokens of each item.
pub(super) struct TokenLengths {
    /// Tokens in the input, with those that are only looked ahead at.
    pub(super) extended: Vec<usize>,
    /// Tokens whose frames are computed.
    pub(super) all: Vec<usize>,
    /// Tokens that may be attended to.
    pub(super) valid: Vec<usize>,
}

impl TokenLengths {
    /// Returns the rows of the input.
    fn given(&self) -> Ragged {
        Ragged::packed(&self.extended)
    }

    /// Returns the rows of the tokens whose frames are computed.
    fn rows(&self) -> Result<Rows> {
        Rows::new(&self.all, &self.valid)
    }
}

/// The encoder from embedded tokens to frames.
#[derive(Debug, Clone)]
pub(super) enum Encoder {
    /// A conformer with upsampling.
    Conformer(Box<Conformer>),
    /// Look-ahead convolutions, whose outputs are mels already.
    Repeated(Repeated),
}

impl Encoder {
    /// Creates the encoder that the settings ask for, below the flow itself.
    pub(super) fn new(mut builder: Builder, flow: &FlowConfig) -> Result<Self> {
        Ok(match flow.pre_lookahead_channels {
            None => Self::Conformer(Box::new(Conformer::new(builder.scope("encoder"), flow)?)),
            Some(inner) => Self::Repeated(Repeated::new(builder, flow, inner)?),
        })
    }

    /// Encodes embedded tokens `[row, channel]`, which are zero where an item is padded. Returns
    /// `[frame row, channel]` and the rows of the items in it. The look-ahead sees padded tokens, as in the public
    /// implementation.
    pub(super) fn forward(
        &self,
        context: &Context,
        tokens: &Value,
        lengths: &TokenLengths,
        streaming: bool,
    ) -> Result<(Value, Rows)> {
        match self {
            Self::Conformer(network) => network.forward(context, tokens, lengths, streaming),
            Self::Repeated(network) => network.forward(context, tokens, lengths),
        }
    }
}
