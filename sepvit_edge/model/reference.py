"""SepViT as the paper describes it (arXiv 2203.15380), in one file and with no runtime in mind.

This is the function that every package is measured against. Module names give the state-dict keys
of the authors' checkpoints. Shapes in comments: B images, n windows of M = ws * ws pixels, C
channels, h heads of d = 32.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, cast, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .variants import HEAD_DIM, MLP_RATIO, ModelConfig, Source, find_variant, windows

if TYPE_CHECKING:
    from .quantized import Quantization

STRIDES = (4, 8, 16, 32)  # of the four stages' maps


def split_windows(x: Tensor, side: int, ws: int) -> Tensor:
    """Cut a (B, side * side, C) map into (B, n, M, C) windows, row by row."""
    B, _, C = x.shape
    g = side // ws
    return x.reshape(B, g, ws, g, ws, C).transpose(2, 3).reshape(B, g * g, ws * ws, C)


def join_windows(x: Tensor, side: int, ws: int) -> Tensor:
    """Put (B, n, M, C) windows back into a (B, side * side, C) map."""
    B, _, _, C = x.shape
    g = side // ws
    return x.reshape(B, g, g, ws, ws, C).transpose(2, 3).reshape(B, side * side, C)


class DropPath(nn.Module):
    """Stochastic depth: in training, drop a residual branch for a share `rate` of the images."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Scale what is kept, so that the expectation stays."""
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * mask / keep


class OverlappingPatchEmbedding(nn.Module):
    """A strided convolution whose patches overlap, then LayerNorm over channels (section 3.1)."""

    def __init__(self, in_channels: int, dim: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, kernel, stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, H/stride * W/stride, C)."""
        return self.norm(self.proj(x).flatten(2).transpose(1, 2))


class ConditionalPositionEncoding(nn.Module):
    """A depthwise 3 x 3 convolution added to the map, after the first block of each stage."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1, groups=dim))

    def forward(self, x: Tensor, side: int) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        B, _, C = x.shape
        image = x.transpose(1, 2).reshape(B, C, side, side)
        return x + self.proj(image).flatten(2).transpose(1, 2)


class DepthwiseSeparableSelfAttention(nn.Module):
    """DSA within each window, then PSA among windows (section 3.2)."""

    def __init__(self, dim: int, separable: bool) -> None:
        super().__init__()
        self.heads = dim // HEAD_DIM
        self.separable = separable
        self.DSA_qkv = nn.Linear(dim, 3 * dim)
        if separable:
            self.win_tokens_norm = nn.LayerNorm(dim)
            self.PSA_qk = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)

    def depthwise(self, x: Tensor) -> Tensor:
        """Attention inside each window, plus the normalised input: (B, n, T, C) -> the same.

        T is M, or M + 1 where a window token stands in front of the pixels.
        """
        B, n, T, C = x.shape
        qkv = self.DSA_qkv(x).reshape(B, n, T, 3, self.heads, HEAD_DIM)
        q, k, v = qkv.permute(3, 0, 1, 4, 2, 5)  # each (B, n, h, T, d)
        attention = (q @ k.transpose(-2, -1) * HEAD_DIM**-0.5).softmax(-1)
        return (attention @ v).transpose(2, 3).reshape(B, n, T, C) + x

    def pointwise(self, x: Tensor) -> Tensor:
        """Attention among windows, read off their tokens: (B, n, 1 + M, C) -> (B, n, M, C)."""
        B, n, T, C = x.shape
        tokens, pixels = x[:, :, 0], x[:, :, 1:]
        qk = self.PSA_qk(F.gelu(self.win_tokens_norm(tokens)))
        q, k = qk.reshape(B, n, 2, self.heads, HEAD_DIM).permute(2, 0, 3, 1, 4)  # (B, h, n, d)
        attention = (q @ k.transpose(-2, -1) * HEAD_DIM**-0.5).softmax(-1)  # (B, h, n, n)
        # The windows' maps are the values as they are: PSA has no value projection.
        v = pixels.reshape(B, n, T - 1, self.heads, HEAD_DIM).permute(0, 3, 1, 2, 4)
        mixed = (attention @ v.flatten(3)).reshape(v.shape)
        return mixed.permute(0, 2, 3, 1, 4).reshape(B, n, T - 1, C) + pixels

    def forward(self, x: Tensor, side: int, ws: int) -> Tensor:
        """(B, n, T, C) normalised windows -> (B, side * side, C)."""
        x = self.depthwise(x)
        if self.separable:
            x = self.pointwise(x)
        return self.proj(join_windows(x, side, ws))


class MLP(nn.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, MLP_RATIO * dim)
        self.fc2 = nn.Linear(MLP_RATIO * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        return self.fc2(F.gelu(self.fc1(x)))


class SepViTBlock(nn.Module):
    """The pre-norm SepViT block; with `ws` twice the window side, grouped self-attention."""

    def __init__(self, dim: int, side: int, ws: int, drop_path: float) -> None:
        super().__init__()
        self.side, self.ws = side, ws
        n = (side // ws) ** 2
        self.separable = n > 1
        if self.separable:
            self.win_tokens = nn.Parameter(torch.zeros(1, n, 1, dim))
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = DepthwiseSeparableSelfAttention(dim, self.separable)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLP(dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        w = split_windows(x, self.side, self.ws)
        if self.separable:
            # In front of the pixels and before norm1: the token is normalised like a pixel.
            w = torch.cat((self.win_tokens.expand(len(x), -1, -1, -1), w), 2)
        x = x + self.drop_path(self.attn(self.norm1(w), self.side, self.ws))
        return x + self.drop_path(self.mlp(self.norm2(x)))


def initialize_layer(module: nn.Module) -> None:
    """Give a linear or a convolution its first random weights; leave other modules alone."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class SepViT(nn.Module):
    """The classification network.

    Parameters
    ----------
    config : ModelConfig
        Variant, number of classes, image size, preprocessing and labels.
    drop_path : float
        Rate of the last block; it rises linearly from 0 at the first.
    """

    def __init__(self, config: ModelConfig, drop_path: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.source: Source | None = None
        self.quantization: Quantization | None = None  # if the weights are rounded to it
        variant = find_variant(config.variant)
        dims, depths = variant.dims, variant.depths
        self.sides = [config.image_size // stride for stride in STRIDES]
        rates = (drop_path * i / (sum(depths) - 1) for i in range(sum(depths)))
        self.patch_embeds = nn.ModuleList(
            OverlappingPatchEmbedding(3, dim, 7, 4)
            if stage == 0
            else OverlappingPatchEmbedding(dims[stage - 1], dim, 3, 2)
            for stage, dim in enumerate(dims)
        )
        self.pos_block = nn.ModuleList(ConditionalPositionEncoding(dim) for dim in dims)
        self.blocks = nn.ModuleList(
            nn.ModuleList(SepViTBlock(dim, side, ws, next(rates)) for ws in sides)
            for dim, side, sides in zip(
                dims, self.sides, windows(depths, config.image_size), strict=True
            )
        )
        self.norm = nn.LayerNorm(dims[-1], eps=1e-6)
        self.head = nn.Linear(dims[-1], config.num_classes)
        self.apply(self._initialize)

    @staticmethod
    def _initialize(module: nn.Module) -> None:
        initialize_layer(module)
        if isinstance(module, SepViTBlock) and module.separable:
            # Not zeros: norm1 of a zero vector has a gradient of 1 / sqrt(eps).
            nn.init.trunc_normal_(module.win_tokens, std=0.02)

    @overload
    def forward(self, x: Tensor, features: Literal[False] = False) -> Tensor: ...
    @overload
    def forward(self, x: Tensor, features: Literal[True]) -> list[Tensor]: ...
    def forward(self, x: Tensor, features: bool = False) -> Tensor | list[Tensor]:
        """Classify normalised images.

        Parameters
        ----------
        x : Tensor
            (B, 3, image_size, image_size), normalised.
        features : bool
            Return the stage maps instead of the logits.

        Returns
        -------
        Tensor or list of Tensor
            Logits (B, num_classes); or four maps (B, C, H, W) of strides 4, 8, 16, 32.
        """
        maps = []
        for stage, side in enumerate(self.sides):
            x = self.patch_embeds[stage](x)
            for index, block in enumerate(cast(nn.ModuleList, self.blocks[stage])):
                x = block(x)
                if index == 0:
                    x = self.pos_block[stage](x, side)
            maps.append(x.transpose(1, 2).reshape(len(x), -1, side, side))
            if stage < 3:
                x = maps[-1]
        return maps if features else self.head(self.norm(x).mean(1))


def with_config(model: SepViT, config: ModelConfig) -> SepViT:
    """Return the same weights under another configuration, for example another image size.

    No weight depends on the image size. The parameters are shared with `model`, not copied.
    """
    with torch.device("meta"):
        twin = SepViT(config)
    twin.load_state_dict(model.state_dict(keep_vars=True), assign=True)
    return twin.train(model.training)


def set_image_size(model: SepViT, image_size: int) -> None:
    """Change the side of the input in place: a resolution schedule keeps model and optimizer.

    Raises
    ------
    SepViTError
        If the size is not a multiple of 32.
    """
    sides = windows(find_variant(model.config.variant).depths, image_size)
    model.config = replace(model.config, image_size=image_size)
    model.sides = [image_size // stride for stride in STRIDES]
    for side, stage, stage_windows in zip(model.sides, model.blocks, sides, strict=True):
        for block, ws in zip(cast(nn.ModuleList, stage), stage_windows, strict=True):
            block.side, block.ws = side, ws  # type: ignore[assignment]


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(p.numel() for p in model.parameters())


def count_macs(model: SepViT) -> int:
    """Count the multiply-accumulates of one image: half of torch's count of FLOPs."""
    from torch.utils.flop_counter import FlopCounterMode

    size = model.config.image_size
    # On the meta device nothing is computed: only shapes are counted.
    with torch.device("meta"):
        twin = SepViT(model.config).eval()
        image = torch.empty(1, 3, size, size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        twin(image)
    return counter.get_total_flops() // 2
