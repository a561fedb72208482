"""The published token-to-mel flows as PyTorch modules, parameters under the names of the public `state_dict`s, for comparison with a
training step of Flowmill. CosyVoice 2: conformer encoder, causal U-Net. Step-Audio: the same encoder on two codebooks, DiT.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

PUBLISHED_ENCODER = dict(attention_heads=8, linear_units=2048, num_blocks=6, num_up_blocks=4)
PUBLISHED_SIZES = dict(input_size=512, output_size=80, spk_embed_dim=192, pre_lookahead_len=3, encoder=PUBLISHED_ENCODER)
PUBLISHED = {
    "cosyvoice2": PUBLISHED_SIZES
    | dict(
        model="cosyvoice2_flow",
        vocab_size=6561,
        estimator=dict(channels=[256], attention_head_dim=64, n_blocks=4, num_mid_blocks=12, num_heads=8),
    ),
    "step-audio": PUBLISHED_SIZES
    | dict(
        model="step_audio_flow",
        vocab_size=5121,
        estimator=dict(hidden_size=512, depth=16, num_heads=8, head_dim=64, mlp_ratio=4.0),
    ),
}


class CausalConv(nn.Conv1d):
    """Sees the current frame and those before it; `[item][channel][frame]`."""

    def forward(self, x):
        return super().forward(F.pad(x, (self.kernel_size[0] - 1, 0)))


class Transpose(nn.Module):
    def forward(self, x):
        return x.transpose(1, 2)


def length_mask(lengths, longest):
    return torch.arange(longest, device=lengths.device)[None] < lengths[:, None]


def sinusoids(times, channels, cosines_first):
    """Encodings of 1000 t. DiT's have the cosines first and stop one step short of the rate 1/10000."""
    half = channels // 2
    steps = half if cosines_first else half - 1
    rates = torch.exp(torch.arange(half, device=times.device).float() * -(math.log(10000.0) / steps))
    angles = 1000.0 * times[:, None] * rates
    parts = (angles.cos(), angles.sin()) if cosines_first else (angles.sin(), angles.cos())
    return torch.cat(parts, -1)


def relative_encodings(frames, channels, device):
    """Of the distances frames - 1 down to 1 - frames: sines at even channels, cosines at odd ones."""
    rates = torch.exp(torch.arange(0, channels, 2, device=device).float() * -(math.log(10000.0) / channels))
    angles = torch.arange(frames - 1, -frames, -1, device=device).float()[:, None] * rates
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(1)


def split_heads(x, heads):
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class RelativeAttention(nn.Module):
    """Self-attention with the relative positions of Transformer-XL (arXiv 1901.02860), two-sided."""

    def __init__(self, channels, heads):
        super().__init__()
        self.heads = heads
        self.linear_q, self.linear_k = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.linear_v, self.linear_out = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.linear_pos = nn.Linear(channels, channels, bias=False)
        self.pos_bias_u = nn.Parameter(torch.empty(heads, channels // heads))
        self.pos_bias_v = nn.Parameter(torch.empty(heads, channels // heads))
        nn.init.xavier_uniform_(self.pos_bias_u)
        nn.init.xavier_uniform_(self.pos_bias_v)

    def forward(self, x, keys, encodings):
        query = split_heads(self.linear_q(x), self.heads)
        key = split_heads(self.linear_k(x), self.heads)
        value = split_heads(self.linear_v(x), self.heads)
        position = split_heads(self.linear_pos(encodings)[None], self.heads)
        content = (query + self.pos_bias_u[:, None]) @ key.transpose(-2, -1)
        distance = self.by_key((query + self.pos_bias_v[:, None]) @ position.transpose(-2, -1))
        scores = (content + distance) / math.sqrt(query.shape[-1])
        scores = scores.masked_fill(~keys[:, None, None], -torch.inf)
        attended = scores.softmax(-1) @ value
        return self.linear_out(attended.transpose(1, 2).flatten(2))

    @staticmethod
    def by_key(scores):
        """From a column per distance to a column per key: with one column more, row i of the same memory starts i columns later."""
        items, heads, frames, distances = scores.shape
        padded = F.pad(scores, (1, 0)).view(items, heads, distances + 1, frames)
        return padded[:, :, 1:].reshape(items, heads, frames, distances)[..., :frames]


class ConformerFeedForward(nn.Module):
    def __init__(self, channels, units):
        super().__init__()
        self.w_1, self.w_2 = nn.Linear(channels, units), nn.Linear(units, channels)

    def forward(self, x):
        return self.w_2(F.silu(self.w_1(x)))


class ConformerBlock(nn.Module):
    def __init__(self, channels, config):
        super().__init__()
        self.self_attn = RelativeAttention(channels, config["attention_heads"])
        self.feed_forward = ConformerFeedForward(channels, config["linear_units"])
        self.norm_ff, self.norm_mha = nn.LayerNorm(channels, eps=1e-12), nn.LayerNorm(channels, eps=1e-12)

    def forward(self, x, keys, encodings):
        x = x + self.self_attn(self.norm_mha(x), keys, encodings)
        return x + self.feed_forward(self.norm_ff(x))


class Embed(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.out = nn.Sequential(nn.Linear(channels, channels), nn.LayerNorm(channels))
        self.scale = math.sqrt(channels)

    def forward(self, x):
        return self.out(x) * self.scale


class PreLookahead(nn.Module):
    def __init__(self, channels, ahead):
        super().__init__()
        self.ahead = ahead
        self.conv1 = nn.Conv1d(channels, channels, ahead + 1)
        self.conv2 = CausalConv(channels, channels, 3)

    def forward(self, x):
        y = F.leaky_relu(self.conv1(F.pad(x.transpose(1, 2), (0, self.ahead))))
        return self.conv2(y).transpose(1, 2) + x


class Upsample(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = CausalConv(channels, channels, 5)

    def forward(self, x):
        return self.conv(x.transpose(1, 2).repeat_interleave(2, 2)).transpose(1, 2)


class Encoder(nn.Module):
    """Blocks at the rate of the tokens, then at twice that rate."""

    def __init__(self, channels, ahead, config):
        super().__init__()
        self.embed, self.up_embed = Embed(channels), Embed(channels)
        self.pre_lookahead_layer = PreLookahead(channels, ahead)
        self.encoders = nn.ModuleList(ConformerBlock(channels, config) for _ in range(config["num_blocks"]))
        self.up_layer = Upsample(channels)
        self.up_encoders = nn.ModuleList(ConformerBlock(channels, config) for _ in range(config["num_up_blocks"]))
        self.after_norm = nn.LayerNorm(channels)

    def forward(self, x, mask):
        x = self.pre_lookahead_layer(self.embed(x))
        x = self.run(self.encoders, x, mask)
        x = self.up_embed(self.up_layer(x))
        return self.after_norm(self.run(self.up_encoders, x, mask.repeat_interleave(2, 1)))

    @staticmethod
    def run(blocks, x, mask):
        encodings = relative_encodings(x.shape[1], x.shape[2], x.device)
        for block in blocks:
            x = block(x, mask, encodings)
        return x


class ConvBlock(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        conv = CausalConv(inputs, outputs, 3)
        self.block = nn.Sequential(conv, Transpose(), nn.LayerNorm(outputs), Transpose(), nn.Mish())

    def forward(self, x, mask):
        return self.block(x * mask) * mask


class ResnetBlock(nn.Module):
    def __init__(self, inputs, outputs, time_channels):
        super().__init__()
        self.mlp = nn.Sequential(nn.Mish(), nn.Linear(time_channels, outputs))
        self.block1, self.block2 = ConvBlock(inputs, outputs), ConvBlock(outputs, outputs)
        self.res_conv = nn.Conv1d(inputs, outputs, 1)

    def forward(self, x, mask, time):
        y = self.block1(x, mask) + self.mlp(time)[:, :, None]
        return self.block2(y, mask) + self.res_conv(x * mask)


class UNetAttention(nn.Module):
    def __init__(self, channels, heads, width):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, heads * width, bias=False)
        self.to_k = nn.Linear(channels, heads * width, bias=False)
        self.to_v = nn.Linear(channels, heads * width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(heads * width, channels))

    def forward(self, x, keys):
        query, key, value = (split_heads(layer(x), self.heads) for layer in (self.to_q, self.to_k, self.to_v))
        attended = F.scaled_dot_product_attention(query, key, value, keys)
        return self.to_out(attended.transpose(1, 2).flatten(2))


class Projected(nn.Module):
    """A linear layer and the exact GELU."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.proj = nn.Linear(inputs, outputs)

    def forward(self, x):
        return F.gelu(self.proj(x))


class UNetFeedForward(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.net = nn.Sequential(Projected(channels, 4 * channels), nn.Identity(), nn.Linear(4 * channels, channels))

    def forward(self, x):
        return self.net(x)


class TransformerBlock(nn.Module):
    def __init__(self, channels, config):
        super().__init__()
        self.norm1, self.norm3 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attn1 = UNetAttention(channels, config["num_heads"], config["attention_head_dim"])
        self.ff = UNetFeedForward(channels)

    def forward(self, x, keys):
        x = x + self.attn1(self.norm1(x), keys)
        return x + self.ff(self.norm3(x))


class TimeMlp(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(inputs, outputs), nn.Linear(outputs, outputs)

    def forward(self, x):
        return self.linear_2(F.silu(self.linear_1(x)))


class UNet(nn.Module):
    """CosyVoice 2's estimator."""

    def __init__(self, inputs, bins, config):
        super().__init__()
        (channels,) = config["channels"]
        self.inputs = inputs
        self.time_mlp = TimeMlp(inputs, 4 * channels)

        def stage(inputs, *rest):
            blocks = nn.ModuleList(TransformerBlock(channels, config) for _ in range(config["n_blocks"]))
            return nn.ModuleList([ResnetBlock(inputs, channels, 4 * channels), blocks, *rest])

        conv = lambda: CausalConv(channels, channels, 3)
        self.down_blocks = nn.ModuleList([stage(inputs, conv())])
        self.mid_blocks = nn.ModuleList(stage(channels) for _ in range(config["num_mid_blocks"]))
        self.up_blocks = nn.ModuleList([stage(2 * channels, conv())])
        self.final_block = ConvBlock(channels, channels)
        self.final_proj = nn.Conv1d(channels, bins, 1)

    def forward(self, x, valid, times):
        time = self.time_mlp(sinusoids(times, self.inputs, cosines_first=False))
        mask, keys = valid[:, None].float(), valid[:, None, None].expand(-1, 1, valid.shape[1], -1)

        def run(stage, x):
            x = stage[0](x, mask, time).transpose(1, 2)
            for block in stage[1]:
                x = block(x, keys)
            return x.transpose(1, 2)

        down, up = self.down_blocks[0], self.up_blocks[0]
        skip = run(down, x)
        x = down[2](skip * mask)
        for stage in self.mid_blocks:
            x = run(stage, x)
        x = run(up, torch.cat((x, skip), 1))
        x = self.final_block(up[2](x * mask), mask)
        return self.final_proj(x * mask) * mask


class DitAttention(nn.Module):
    def __init__(self, channels, heads, width):
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k = nn.Linear(channels, heads * width), nn.Linear(channels, heads * width)
        self.to_v, self.proj = nn.Linear(channels, heads * width), nn.Linear(heads * width, channels)
        self.q_norm, self.k_norm = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x, keys):
        query, key, value = (split_heads(layer(x), self.heads) for layer in (self.to_q, self.to_k, self.to_v))
        attended = F.scaled_dot_product_attention(self.q_norm(query), self.k_norm(key), value, keys)
        return self.proj(attended.transpose(1, 2).flatten(2))


class DitMlp(nn.Module):
    def __init__(self, channels, units):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(channels, units), nn.Linear(units, channels)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class DitConvolutions(nn.Module):
    def __init__(self, channels):
        super().__init__()
        first, second = CausalConv(channels, channels, 3), CausalConv(channels, channels, 3)
        norm = nn.LayerNorm(channels)
        self.block = nn.Sequential(Transpose(), first, Transpose(), norm, nn.Mish(), Transpose(), second, Transpose())

    def forward(self, x):
        return self.block(x)


def modulated(x, shift, scale):
    """The norm without weights of its own, then scale and shift per item."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


class DitBlock(nn.Module):
    def __init__(self, config):
        super().__init__()
        channels = config["hidden_size"]
        self.attn = DitAttention(channels, config["num_heads"], config["head_dim"])
        self.mlp = DitMlp(channels, int(channels * config["mlp_ratio"]))
        self.conv = DitConvolutions(channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(channels, 9 * channels))

    def forward(self, x, keys, time):
        vectors = self.adaLN_modulation(time)[:, None].chunk(9, -1)
        for layer, (shift, scale, gate) in (
            (lambda y: self.attn(y, keys), vectors[:3]),
            (self.conv, vectors[6:]),
            (self.mlp, vectors[3:6]),
        ):
            x = x + gate * layer(modulated(x, shift, scale))
        return x


class DitTime(nn.Module):
    CHANNELS = 256

    def __init__(self, channels):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(self.CHANNELS, channels), nn.SiLU(), nn.Linear(channels, channels))

    def forward(self, times):
        return self.mlp(sinusoids(times, self.CHANNELS, cosines_first=True))


class DitFinal(nn.Module):
    def __init__(self, channels, bins):
        super().__init__()
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(channels, 2 * channels))
        self.linear = nn.Linear(channels, bins)

    def forward(self, x, time):
        return self.linear(modulated(x, *self.adaLN_modulation(time)[:, None].chunk(2, -1)))


class Dit(nn.Module):
    """Step-Audio's estimator."""

    def __init__(self, inputs, bins, config):
        super().__init__()
        channels = config["hidden_size"]
        self.t_embedder, self.in_proj = DitTime(channels), nn.Linear(inputs, channels)
        self.blocks = nn.ModuleList(DitBlock(config) for _ in range(config["depth"]))
        self.final_layer = DitFinal(channels, bins)

    def forward(self, x, valid, times):
        time, keys = self.t_embedder(times), valid[:, None, None].expand(-1, 1, valid.shape[1], -1)
        x = self.in_proj(x.transpose(1, 2))
        for block in self.blocks:
            x = block(x, keys, time)
        return self.final_layer(x, time).transpose(1, 2)


class DualEmbedding(nn.Module):
    """Two ids per token in one table, half of the channels each."""

    def __init__(self, entries, channels):
        super().__init__()
        self.embedding = nn.Embedding(entries, channels // 2)

    def forward(self, tokens):
        return self.embedding(tokens).flatten(-2)


class Flow(nn.Module):
    """From the golden files' configuration, or the published one."""

    def __init__(self, config):
        super().__init__()
        channels, bins = config["input_size"], config["output_size"]
        dual = config["model"] == "step_audio_flow"
        self.input_embedding = (DualEmbedding if dual else nn.Embedding)(config["vocab_size"], channels)
        self.spk_embed_affine_layer = nn.Linear(config["spk_embed_dim"], bins)
        self.encoder = Encoder(channels, config["pre_lookahead_len"], config["encoder"])
        self.encoder_proj = nn.Linear(channels, bins)
        estimator = (Dit if dual else UNet)(4 * bins, bins, config["estimator"])
        self.decoder = nn.ModuleDict({"estimator": estimator})
        self.sigma_min = config.get("sigma_min", 1e-6)

    def loss(self, batch):
        """The conditional flow matching loss: mean squared error of the velocity over valid frames and bins."""
        tokens, lengths, keep = batch["speech_token"], batch["speech_token_len"], batch["cfg_keep"]
        mask = length_mask(lengths, tokens.shape[1])
        embedded = self.input_embedding(tokens.clamp(min=0)) * mask[..., None]
        mu = self.encoder_proj(self.encoder(embedded, mask)).transpose(1, 2)
        speaker = self.spk_embed_affine_layer(F.normalize(batch["embedding"], dim=1))[..., None].expand_as(mu)
        x, z, t = batch["speech_feat"].transpose(1, 2), batch["z"], batch["t"][:, None, None]
        frames = x.shape[2]
        prompt = x * length_mask(batch["cond_len"], frames)[:, None]
        position, velocity = (1 - (1 - self.sigma_min) * t) * z + t * x, x - (1 - self.sigma_min) * z
        conditions = torch.cat((mu, speaker, prompt), 1) * keep[:, None, None]
        valid = length_mask(2 * lengths, frames)
        found = self.decoder["estimator"](torch.cat((position, conditions), 1), valid, batch["t"])
        weight = valid[:, None].float()
        return ((found - velocity) * weight).square().sum() / (weight.sum() * x.shape[1])
