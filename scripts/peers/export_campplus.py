"""Writes a CAM++ speaker encoder of the published sizes with random weights as ONNX and as a PyTorch state dict.

    python export_campplus.py FOLDER

Written from the paper (Wang et al. 2023) and the names of the public state dict, for benchmarks and for the tests of the weight readers.
"""

import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional


class ResidualBlock(nn.Module):
    def __init__(self, channels, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, stride=(stride, 1), padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        short = [] if stride == 1 else [
            nn.Conv2d(channels, channels, 1, stride=(stride, 1), bias=False), nn.BatchNorm2d(channels)]
        self.shortcut = nn.Sequential(*short)

    def forward(self, x):
        inner = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(inner + self.shortcut(x))


class Head(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.layer1 = nn.Sequential(ResidualBlock(channels, 2), ResidualBlock(channels, 1))
        self.layer2 = nn.Sequential(ResidualBlock(channels, 2), ResidualBlock(channels, 1))
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=(2, 1), padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x.unsqueeze(1))))
        x = functional.relu(self.bn2(self.conv2(self.layer2(self.layer1(x)))))
        return x.reshape(x.shape[0], x.shape[1] * x.shape[2], x.shape[3])


def batch_norm(channels, affine=True):
    parts = nn.Sequential()
    parts.add_module("batchnorm", nn.BatchNorm1d(channels, affine=affine))
    return parts


class Mask(nn.Module):
    """A dilated convolution, masked by its context: the mean over all frames plus that over 100."""

    def __init__(self, inner, growth, dilation):
        super().__init__()
        self.linear_local = nn.Conv1d(inner, growth, 3, padding=dilation, dilation=dilation, bias=False)
        self.linear1 = nn.Conv1d(inner, inner // 2, 1)
        self.linear2 = nn.Conv1d(inner // 2, growth, 1)

    def forward(self, x):
        pooled = functional.avg_pool1d(x, 100, 100, ceil_mode=True)
        repeated = pooled.unsqueeze(-1).expand(*pooled.shape, 100).reshape(*pooled.shape[:-1], -1)
        context = x.mean(-1, keepdim=True) + repeated[..., : x.shape[-1]]
        return self.linear_local(x) * torch.sigmoid(self.linear2(functional.relu(self.linear1(context))))


class DenseLayer(nn.Module):
    def __init__(self, channels, inner, growth, dilation):
        super().__init__()
        self.nonlinear1 = batch_norm(channels)
        self.linear1 = nn.Conv1d(channels, inner, 1, bias=False)
        self.nonlinear2 = batch_norm(inner)
        self.cam_layer = Mask(inner, growth, dilation)

    def forward(self, x):
        inner = functional.relu(self.nonlinear2(self.linear1(functional.relu(self.nonlinear1(x)))))
        return torch.cat([x, self.cam_layer(inner)], dim=1)


class Linear(nn.Module):
    """A convolution with its normalization before or behind it."""

    def __init__(self, convolution, norm, first, relu=True):
        super().__init__()
        self.linear = convolution
        self.nonlinear = norm
        self.first, self.relu = first, relu

    def forward(self, x):
        cut = functional.relu if self.relu else lambda x: x
        return self.linear(cut(self.nonlinear(x))) if self.first else cut(self.nonlinear(self.linear(x)))


class Campplus(nn.Module):
    def __init__(self, bands=80, embedding=192, growth=32, bottleneck=4, initial=128, head=32):
        super().__init__()
        self.head = Head(head)
        parts = {"tdnn": Linear(nn.Conv1d(head * bands // 8, initial, 5, 2, 2, bias=False), batch_norm(initial), False)}
        channels = initial
        for index, (layers, dilation) in enumerate(((12, 1), (24, 2), (16, 2)), 1):
            block = nn.Sequential()
            for layer in range(1, layers + 1):
                block.add_module(f"tdnnd{layer}", DenseLayer(channels, growth * bottleneck, growth, dilation))
                channels += growth
            parts[f"block{index}"] = block
            halved = nn.Conv1d(channels, channels // 2, 1, bias=False)
            parts[f"transit{index}"] = Linear(halved, batch_norm(channels), True)
            channels //= 2
        parts["out_nonlinear"] = batch_norm(channels)
        parts["dense"] = Linear(nn.Conv1d(2 * channels, embedding, 1, bias=False), batch_norm(embedding, False), False, False)
        self.xvector = nn.ModuleDict(parts)

    def forward(self, features):
        x = self.head(features.transpose(1, 2))
        for name, part in self.xvector.items():
            if name == "out_nonlinear":
                x = functional.relu(part(x))
                x = torch.cat([x.mean(-1), x.std(-1)], dim=-1).unsqueeze(-1)
            else:
                x = part(x)
        return x.squeeze(-1)


def main(folder):
    torch.manual_seed(0)
    model = Campplus().eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            if module.affine:
                module.weight.data.uniform_(0.5, 1.5)
                module.bias.data.normal_(0, 0.1)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), folder / "model.pt")
    with torch.no_grad():
        features = torch.randn(1, 345, 80)
        expected = model(features)
        names = {"input_names": ["input"], "output_names": ["output"], "opset_version": 14}
        axes = {"input": {0: "batch", 1: "time"}, "output": {0: "batch"}}
        path = str(folder / "model.onnx")
        torch.onnx.export(model, (features,), path, dynamic_axes=axes, dynamo=False, **names)
    import numpy

    numpy.save(folder / "features.npy", features.numpy())
    numpy.save(folder / "embedding.npy", expected.numpy())
    print(sum(parameter.numel() for parameter in model.parameters()), "parameters")


main(Path(sys.argv[1]))
