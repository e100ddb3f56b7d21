"""What operations do to features: which leave each one where it is, which move them, and which meet two of them."""

from __future__ import annotations

from torch import nn
from torch.nn.modules import activation, dropout, padding, pooling, upsampling

ELEMENTWISE = (
    activation.ReLU, activation.ReLU6, activation.GELU, activation.SiLU, activation.Mish, activation.Hardswish, activation.Hardsigmoid,
    activation.Sigmoid, activation.Tanh, activation.LeakyReLU, activation.ELU, activation.SELU, activation.CELU, activation.Softplus,
    activation.Softsign, activation.LogSigmoid, activation.Hardtanh, activation.Tanhshrink, activation.Softshrink, activation.Hardshrink,
    activation.Threshold, dropout._DropoutNd, nn.Identity,
)  # fmt: skip
FLATTEN = nn.Flatten
KNOWN_MODULES = (
    pooling._MaxPoolNd, pooling._AvgPoolNd, pooling._AdaptiveAvgPoolNd, pooling._AdaptiveMaxPoolNd, pooling._LPPoolNd, upsampling.Upsample,
    padding._ConstantPadNd, padding._ReflectionPadNd, padding._ReplicationPadNd, padding._CircularPadNd,
)  # fmt: skip

# Functions and methods, by their names.
UNARY = frozenset(
    "relu relu_ relu6 gelu silu mish hardswish hardsigmoid sigmoid tanh leaky_relu elu selu celu softplus softsign logsigmoid hardtanh "
    "clamp clamp_ clip abs neg exp sqrt rsqrt square sin cos erf dropout dropout1d dropout2d dropout3d contiguous clone detach to float "
    "double half type type_as requires_grad_ cpu".split()
)
TYPES = frozenset("to type_as".split())  # of whose further arguments only the dtype and the device count
KINDS = frozenset("dim ndim ndimension dtype device is_floating_point is_complex is_cuda requires_grad layout training".split())
TOGETHER = frozenset("add add_ iadd sub sub_ isub mul mul_ imul multiply truediv div div_ itruediv maximum minimum pow".split())
PER_CHANNEL = frozenset(
    "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d "
    "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d interpolate pad".split()
)
REDUCTIONS = frozenset("mean sum amax amin".split())
MOVES = frozenset(
    "flatten view reshape permute transpose swapaxes t movedim squeeze unsqueeze expand expand_as view_as reshape_as repeat chunk split "
    "unbind select narrow roll flip unflatten pixel_shuffle pixel_unshuffle".split()
)
