"""Architectures, one file a family, and the registry that makes them by name."""

from cnn_jax.models.autoencoder import Autoencoder
from cnn_jax.models.compact import Compact
from cnn_jax.models.iresnet import IResNet
from cnn_jax.models.lenet import LeNet5
from cnn_jax.models.mobilefacenet import MobileFaceNet
from cnn_jax.models.preact_resnet import PreactResNet
from cnn_jax.models.registry import (
    create,
    initialize,
    initializer,
    names,
    option_names,
    segments,
)
from cnn_jax.models.resnet import ResNet
from cnn_jax.models.summary import ModelSummary, count_flops, count_parameters, describe
from cnn_jax.models.unet import UNet
from cnn_jax.models.vgg import VGG, AlexNet

__all__ = [
    "VGG",
    "AlexNet",
    "Autoencoder",
    "Compact",
    "IResNet",
    "LeNet5",
    "MobileFaceNet",
    "ModelSummary",
    "PreactResNet",
    "ResNet",
    "UNet",
    "count_flops",
    "count_parameters",
    "create",
    "describe",
    "initialize",
    "initializer",
    "names",
    "option_names",
    "segments",
]
