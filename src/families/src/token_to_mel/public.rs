//! The configuration of public inference code for an exported flow, in the form of hyperpyyaml: the classes of the public repository with the
//! dimensions that were trained. It lies next to `flow.pt` under the name that public code looks for.

use std::fmt::Write as _;

use flowmill_audio::features::MelConfig;
use flowmill_networks::flow::{EncoderConfig, EstimatorConfig, FlowConfig, MatchingConfig, UNetConfig};
use flowmill_nn::solvers::TimeSchedule;

/// A configuration for public inference code.
pub struct PublicConfig {
    /// The file's name.
    pub file: &'static str,
    /// The content, in YAML.
    pub text: String,
}

/// Lines of YAML, each with its indentation.
#[derive(Default)]
pub struct Lines(String);

impl Lines {
    /// Begins with a comment on the file; `departures` are settings that public code does not implement.
    pub fn about(code: &str, rest: &str, departures: &[String]) -> Self {
        let mut lines = Self::default();
        lines.line(0, format_args!("# The flow in flow.pt, for {code}, with the dimensions that Flowmill trained."));
        lines.line(0, format_args!("# {rest}"));
        if !departures.is_empty() {
            let list = departures.join(", ");
            lines.line(0, format_args!("# Public code does not implement settings of this model: {list}."));
        }
        lines
    }

    /// Adds a line, `depth` levels deep.
    pub fn line(&mut self, depth: usize, content: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{:indent$}{content}", "", indent = 4 * depth);
    }

    /// Adds `key: value`.
    pub fn value(&mut self, depth: usize, key: &str, value: impl std::fmt::Display) {
        self.line(depth, format_args!("{key}: {value}"));
    }

    /// Adds the constants that all parts refer to.
    pub fn constants(&mut self, config: &FlowConfig, mel: &MelConfig) {
        self.value(0, "sample_rate", mel.sample_rate);
        self.value(0, "spk_embed_dim", config.spk_embed_dim);
        self.value(0, "token_mel_ratio", config.token_mel_ratio);
        self.value(0, "token_frame_rate", token_rate(config, mel));
    }

    /// Adds the settings of a mel by the names of `mel_spectrogram`.
    pub fn mel(&mut self, depth: usize, mel: &MelConfig) {
        let numbers = [
            ("n_fft", mel.n_fft),
            ("num_mels", mel.n_mels),
            ("sampling_rate", mel.sample_rate as usize),
            ("hop_size", mel.hop_length),
            ("win_size", mel.win_length),
        ];
        numbers.iter().for_each(|(key, number)| self.value(depth, key, number));
        self.value(depth, "fmin", mel.fmin);
        self.value(depth, "fmax", mel.fmax);
        self.value(depth, "center", "False");
    }

    /// Adds the sizes of a flow.
    pub fn sizes(&mut self, depth: usize, config: &FlowConfig) {
        self.value(depth, "input_size", config.input_size);
        self.value(depth, "output_size", config.output_size);
        self.value(depth, "spk_embed_dim", "!ref <spk_embed_dim>");
        self.value(depth, "vocab_size", config.vocab_size);
    }

    /// Adds the settings that all encoders have.
    pub fn encoder(&mut self, depth: usize, config: &FlowConfig) {
        let EncoderConfig { attention_heads, linear_units, num_blocks, .. } = config.encoder;
        let EncoderConfig { dropout_rate, positional_dropout_rate, attention_dropout_rate, .. } = config.encoder;
        self.value(depth, "input_size", config.input_size);
        self.value(depth, "output_size", config.input_size);
        self.value(depth, "input_layer", "'linear'");
        self.value(depth, "attention_heads", attention_heads);
        self.value(depth, "linear_units", linear_units);
        self.value(depth, "num_blocks", num_blocks);
        self.value(depth, "dropout_rate", dropout_rate);
        self.value(depth, "positional_dropout_rate", positional_dropout_rate);
        self.value(depth, "attention_dropout_rate", attention_dropout_rate);
        self.value(depth, "normalize_before", "True");
        self.value(depth, "pos_enc_layer_type", "'rel_pos_espnet'");
        self.value(depth, "selfattention_layer_type", "'rel_selfattn'");
    }

    /// Adds the encoder and the decoder of CosyVoice 2 and of its descendants; `decoder` is the module of their classes, and `channels` and
    /// `speaker` are the numbers of channels of the decoder that the public configuration states.
    pub fn cosyvoice(&mut self, config: &FlowConfig, decoder: [&str; 2], channels: usize, speaker: usize) {
        self.value(1, "encoder", "!new:cosyvoice.transformer.upsample_encoder.UpsampleConformerEncoder");
        self.encoder(2, config);
        self.value(2, "use_cnn_module", "False");
        self.value(2, "macaron_style", "False");
        if config.encoder.static_chunk_size > 0 {
            self.value(2, "static_chunk_size", config.encoder.static_chunk_size);
        }
        let [matching, estimator] = decoder;
        self.decoder(config, matching, channels, speaker);
        let EstimatorConfig::UNet(network) = &config.estimator else { return };
        self.value(2, "estimator", format_args!("!new:{estimator}.CausalConditionalDecoder"));
        self.network(3, network, config);
    }

    /// Adds a decoder without its estimator; `matching` is the module of its class.
    pub fn decoder(&mut self, config: &FlowConfig, matching: &str, channels: usize, speaker: usize) {
        self.value(1, "decoder", format_args!("!new:{matching}.CausalConditionalCFM"));
        self.value(2, "in_channels", channels);
        self.value(2, "n_spks", 1);
        self.value(2, "spk_emb_dim", speaker);
        self.line(2, format_args!("cfm_params: !new:omegaconf.DictConfig"));
        self.line(3, format_args!("content:"));
        self.matching(4, &config.matching);
    }

    fn matching(&mut self, depth: usize, matching: &MatchingConfig) {
        let schedule = match matching.t_scheduler {
            TimeSchedule::Uniform => "'linear'",
            TimeSchedule::Cosine => "'cosine'",
        };
        self.value(depth, "sigma_min", matching.sigma_min);
        self.value(depth, "solver", "'euler'");
        self.value(depth, "t_scheduler", schedule);
        self.value(depth, "training_cfg_rate", matching.training_cfg_rate);
        self.value(depth, "inference_cfg_rate", matching.inference_cfg_rate);
        self.value(depth, "reg_loss_type", "'l1'");
    }

    fn network(&mut self, depth: usize, network: &UNetConfig, config: &FlowConfig) {
        let channels: Vec<String> = network.channels.iter().map(usize::to_string).collect();
        self.value(depth, "in_channels", config.estimator_channels());
        self.value(depth, "out_channels", config.output_size);
        self.value(depth, "channels", format_args!("[{}]", channels.join(", ")));
        self.value(depth, "dropout", network.dropout);
        self.value(depth, "attention_head_dim", network.attention_head_dim);
        self.value(depth, "n_blocks", network.n_blocks);
        self.value(depth, "num_mid_blocks", network.num_mid_blocks);
        self.value(depth, "num_heads", network.num_heads);
        self.value(depth, "act_fn", "'gelu'");
        self.value(depth, "static_chunk_size", network.static_chunk_size);
        self.value(depth, "num_decoding_left_chunks", -1);
    }

    /// Returns the text as the file `file`.
    pub fn finish(self, file: &'static str) -> PublicConfig {
        PublicConfig { file, text: self.0 }
    }
}

/// Returns the tokens per second, without a fraction where it is none.
fn token_rate(config: &FlowConfig, mel: &MelConfig) -> f64 {
    let rate = f64::from(mel.sample_rate) / mel.hop_length as f64 / config.token_mel_ratio.max(1) as f64;
    (rate * 1000.0).round() / 1000.0
}
