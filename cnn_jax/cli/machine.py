"""What there is to work with: `models` and `doctor`."""

from __future__ import annotations

from cnn_jax.cli.arguments import Parser


def models(arguments: list[str]) -> int:
    """Print the networks and what they cost."""
    parser = Parser(prog="cnn-jax models", description="The networks and what they cost.")
    parser.add_argument("--image-size", type=int, default=32, help="pixels (32)")
    parser.add_argument("--channels", type=int, default=3, help="(3)")
    parser.add_argument("--num-classes", type=int, default=10, help="(10)")
    options = parser.parse_args(arguments)
    from cnn_jax import tables

    print(tables.models(options.image_size, options.channels, options.num_classes))
    return 0


def doctor(arguments: list[str]) -> int:
    """Print what jax finds here."""
    Parser(prog="cnn-jax doctor", description="What jax finds here.").parse_args(arguments)
    from cnn_jax import doctor

    print(doctor.examine())
    return 0
