"""The groups of a recipe, each with its fields and what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class DataRecipe:
    """Where images come from.

    Attributes:
      source: name of a known data set, a path whose layout is recognised, or `tfds:NAME`.
      root: folder in which named data sets lie; None for the current folder (TFDS sets:
        $TFDS_DATA_DIR or ~/tensorflow_datasets).
      image_size: height and width in pixels; None keeps or chooses one (see `data.load`).
      channels: 1 or 3; None follows the images.
      fit: how an image of another shape is fitted: `crop`, `pad` or `stretch`.
      label: column of a table with the class, by name or by position from 0; None finds it. Of a
        TFDS set, a feature.
      path_column: column with each image's path, in the same way.
      split_column: column with each image's part, in the same way.
      group_column: column with what must not be divided, such as a patient, in the same way. Of a
        TFDS set, a feature.
      validation: fraction of the training part held out where the source has no
        validation part; with an image of each class of three or more, unless it is so small that
        less than a quarter of an image of a class were its share.
      split_seed: seed of the splits we make; not the seed of the run, so that runs
        with different seeds share their splits.
      corrections: path of a table of corrected labels, `id,given,corrected`, such as
        `cnn-jax relabel` writes; they replace those of the source in every part.
      hierarchy: path of a table of what each class is, more and more generally, with lines
        `class,family,order`; each level is a further target, for `loss.hierarchy`.
      duplicates: what is done when test images are also in train or validation, or two
        given parts share a group, such as a patient: `stop` with an error; `drop-train`
        takes the copies, and the images of such groups, out of train and validation;
        `regroup` pools all images and splits them anew, copies and groups together; `keep`
        goes on.
      group_near_duplicates: whether near-copies, too, count as one group, which no split
        made here parts; given parts that share one are reported, and `drop-train` and
        `regroup` part them.
      folds: of a cross-validation; 0 for none. See `data.fold`. A test part that the data came
        with is left out, but for `duplicates = "regroup"`, which pools it, too.
      fold: the one that is tested on, from 1.
      unseen_identities: so many of the people (or products: the classes) are the test part, none
        of whose images is learned from; `validation` is then the share of the others, 2 at least,
        whose images the validation part has. Parts that the data came with, and that share nobody
        with another, are kept: it is then the number of people in test. A run is judged by
        verification and identification of these people. See `data.disjoint_identities`; 0 for
        parts that share their classes.
      identities: so many people are learned from, with `unseen_identities`; 0 for all that are
        left. What `identities` and `shots` leave out, `split_seed` chooses; a larger number
        leaves out fewer of the same.
      shots: so many images of each class are learned from, at most; 0 for all. The other parts
        stay as they are.
      masks: whether the segmentation masks beside the images are read, and learned: the network
        then says of each pixel what it belongs to.
      regions: names of what the values 1, 2, ... of the masks mean; without them masks are black
        and one other value, the region `lesion`.
      regions_by_class: what such a mask marks is a region of the image's class instead, so that
        kinds of defects are told apart; see `data.regions_by_class`.
      unreadable: `stop` where an image file is damaged, or `leave-out` what cannot be read, and
        animations, and name it.
    """

    source: str = "digits"
    root: str | None = None
    image_size: int | None = None
    channels: Literal[1, 3] | None = None
    fit: Literal["crop", "pad", "stretch"] = "crop"
    label: str | None = None
    path_column: str | None = None
    split_column: str | None = None
    group_column: str | None = None
    validation: float = 0.1
    split_seed: int = 0
    corrections: str | None = None
    hierarchy: str | None = None
    duplicates: Literal["stop", "drop-train", "regroup", "keep"] = "stop"
    group_near_duplicates: bool = False
    folds: int = 0
    fold: int = 1
    unseen_identities: int = 0
    identities: int = 0
    shots: int = 0
    masks: bool = False
    regions: tuple[str, ...] = ()
    regions_by_class: bool = False
    unreadable: Literal["stop", "leave-out"] = "stop"


@dataclass(frozen=True)
class ModelRecipe:
    """Which network.

    Attributes:
      name: one that `cnn-jax models` lists.
      options: fields of that network by name, `--model.options.widths '[16, 32]'`.
    """

    name: str = "compact"
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AugmentRecipe:
    """What happens to training images inside the step, in this order; 0 is none throughout.

    Strengths are the largest; each image draws its own, uniformly unless said otherwise.
    Crop to rotate and the geometry of the policy are one resampling, linear between pixels.

    Attributes:
      patch: side in pixels of a random part of each image and its mask, at its own scale, that a
        segmentation is trained on; it is then evaluated by windows of that size that overlap.
        0 for whole images.
      patch_marked: probability that a patch lies around a pixel that the mask marks.
      crop: smallest share of the area that a random part, resized to the whole, may have.
      crop_ratio: its largest change of aspect ratio, log-uniform in [1 / ratio, ratio].
      shear: angle by which vertical lines lean, degrees.
      scale: relative change of size: 0.1 is log-uniform in [1 / 1.1, 1.1].
      rotate: angle either way, degrees.
      policy: `trivial` for TrivialAugment (Müller and Hutter 2021): one of 14 operations of
        random strength for each image; or `none`.
      translate: shift along each axis, whole pixels.
      padding: what geometry uncovers: `zero` (black; in masks background) or `reflect`.
      flip: mirror left and right with probability 1/2; `alternating` mirrors at random in
        the first epoch and every other epoch from then on (Jordan 2024).
      flip_vertical: mirror top and bottom, with probability 1/2.
      flip_depth: mirror the slices of a volume, with probability 1/2.
      brightness, contrast, saturation: factor in [1 - x, 1 + x], as in Pillow.
      hue: turn of the colour circle either way, from 0 to 0.5.
      blur: standard deviation of a Gaussian, pixels.
      noise: standard deviation of Gaussian noise; 1 is from black to white.
      cutout: side of the square set to zero, pixels.
      erase: probability of a rectangle of random values (Zhong et al. 2020).
      copy_paste: probability that what the mask of another image marks is copied into an image and
        its mask (Ghiasi et al. 2021), in a segmentation of images: of few marked examples it makes
        many. See `augment.copying`.
      defects: probability of a defect that is made in the image, and marked in its mask, of a
        segmentation of one region: to find what few masks show, or none. See `augment.defects`.
      mixup: alpha of the Beta distribution of mixing weights (Zhang et al. 2018).
      cutmix: alpha of the Beta distribution of the pasted area (Yun et al. 2019). With both,
        each image draws one of the two.
    """

    patch: int = 0
    patch_marked: float = 1 / 3
    crop: float = 0.0
    crop_ratio: float = 4 / 3
    shear: float = 0.0
    scale: float = 0.0
    rotate: float = 0.0
    policy: Literal["none", "trivial"] = "none"
    translate: int = 2
    padding: Literal["zero", "reflect"] = "reflect"
    flip: Literal["alternating"] | bool = False
    flip_vertical: bool = False
    flip_depth: bool = False
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    cutout: int = 0
    erase: float = 0.0
    copy_paste: float = 0.0
    defects: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0


@dataclass(frozen=True)
class LossRecipe:
    """What is minimised.

    Attributes:
      label_smoothing: share of the target spread evenly over the classes.
      class_weights: `none`; `balanced` (inverse frequency in the training part); or one
        weight for each class.
      focal: gamma of the focal loss (Lin et al. 2017), which takes weight from examples
        that are right already; 0 for cross-entropy.
      logit_adjustment: tau; while training, tau times the logarithm of each class's share in
        the training part (of several labels, of its odds) is added to the logits (Menon et al.
        2021). With 1 the network learns probabilities for classes that are equally frequent,
        which is best for balanced accuracy; 0 for none.
      hierarchy: names of further targets of the data that say what each class is, nearest first,
        such as `coarse` of CIFAR-100: the cross-entropy of each is added, whose probabilities are
        sums over the classes, so that a mistake within a group costs less than one across
        (`training.task.Classification`).
      hierarchy_weight: weight of each of these beside that of the classes.
      dice: of a segmentation: weight of the Dice loss beside cross-entropy.
      margin: by how much the right class must be nearest, on the unit sphere, for embeddings
        that compare people or products never seen: `none` for logits as they are; `sphereface`,
        `cosface`, `arcface`; `combined`, all three at once; `adaface` (larger for images of large
        norm) or `magface` (the norm learns to be quality). The network then ends in an embedding
        (`model.options.embedding_size`, 128 where it has none of its own) and centres. See
        `training.margins`.
      margin_size: m of SphereFace (a factor), CosFace (a cosine), ArcFace (radians) or AdaFace;
        None for the published one: 1.35, 0.35, 0.5, 0.4.
      margins: m1, m2, m3 of `combined`, cos(m1 theta + m2) - m3.
      adaface_h: of a standard deviation of norms, how many are a whole margin.
      magface_norms: of MagFace, the least norm and the most.
      magface_margins: of MagFace, the margins (radians) at these two norms.
      magface_regulariser: weight of what favours large norms.
      scale: of a margin: factor of the cosines. With few classes a smaller one learns easier.
      straight_through: whether a margin changes the loss but not the gradient of the cosine, as
        in insightface's code; else the gradient is that of the formula.
      pairs: a loss that compares the embeddings of a batch with each other, in place of classes,
        with `data.unseen_identities`: `contrastive`; `triplet-all`, `triplet-hard` or
        `triplet-semi-hard`, by which triplets count; `supervised-contrastive`; or `none`. See
        `training.metric_learning`. Take `train.sampling = "identities"`, that each image has
        company. The centres of the network's head learn nothing and mean nothing.
      pair_margin: of contrastive and triplet losses: a distance on the unit sphere, 0 to 2; None
        for the usual one: 1 and 0.2.
      pair_temperature: of `supervised-contrastive`: what divides the cosines.
    """

    label_smoothing: float = 0.0
    class_weights: Literal["none", "balanced"] | tuple[float, ...] = "none"
    focal: float = 0.0
    logit_adjustment: float = 0.0
    hierarchy: tuple[str, ...] = ()
    hierarchy_weight: float = 1.0
    dice: float = 1.0
    margin: Literal[
        "none", "sphereface", "cosface", "arcface", "combined", "adaface", "magface"
    ] = "none"
    margin_size: float | None = None
    margins: tuple[float, ...] = (1.0, 0.3, 0.2)
    adaface_h: float = 0.333
    magface_norms: tuple[float, ...] = (10.0, 110.0)
    magface_margins: tuple[float, ...] = (0.45, 0.8)
    magface_regulariser: float = 35.0
    scale: float = 64.0
    straight_through: bool = False
    pairs: Literal[
        "none",
        "contrastive",
        "triplet-all",
        "triplet-hard",
        "triplet-semi-hard",
        "supervised-contrastive",
    ] = "none"
    pair_margin: float | None = None
    pair_temperature: float = 0.1


@dataclass(frozen=True)
class OptimizerRecipe:
    """How parameters move.

    Attributes:
      name: `sgd` (momentum; weight decay is added to the gradient, as in PyTorch);
        `adamw` (decoupled decay, scaled by the learning rate); `lars` (SGD whose rate is
        scaled for each kernel, for large batches: You et al. 2017; it is many times that of
        SGD, `cnn-jax lr-range` finds it); `muon` (orthogonalised momentum for the kernels
        of convolutions, SGD for the rest).
      learning_rate: peak learning rate.
      momentum: SGD's, LARS's and Muon's momentum, or AdamW's beta 1.
      nesterov: Nesterov's form of momentum (not AdamW).
      weight_decay: strength of the decay.
      decay_exclude: regular expressions, searched in parameter paths such as
        `stem/conv/kernel`; what matches is not decayed, nor scaled by LARS. One that
        matches nothing is an error, except for the defaults: biases, scales of norms, and slopes
        of PReLU, which decay would pull towards ReLU (He et al. 2015).
      beta2, epsilon: AdamW only.
      clip_norm: gradients are scaled down to this global norm; 0 for no clipping.
      sam: radius of sharpness-aware minimisation (Foret et al. 2021): the gradient is
        taken where the loss is highest within it, at twice the cost; 0 for none. Any
        optimizer can have it.
      trust_coefficient: LARS only.
      other_learning_rate: Muon only: peak learning rate of what Muon does not move.
      muon_steps: Muon only: Newton-Schulz iterations; 3 are enough for small networks.
      muon_project: Muon only: kernels keep the norm sqrt(output channels) instead of
        being decayed.
      muon_exclude: Muon only: regular expressions; kernels that match are moved by SGD.
        Name depthwise kernels here: they are no matrices, nor are the centres of a margin.
    """

    name: Literal["sgd", "adamw", "lars", "muon"] = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    decay_exclude: tuple[str, ...] = ("bias$", "scale$", "negative_slope$")
    beta2: float = 0.999
    epsilon: float = 1e-8
    clip_norm: float = 0.0
    sam: float = 0.0
    trust_coefficient: float = 0.001
    other_learning_rate: float = 0.05
    muon_steps: int = 5
    muon_project: bool = True
    muon_exclude: tuple[str, ...] = ("centres$",)


@dataclass(frozen=True)
class ScheduleRecipe:
    """How the learning rate changes.

    Attributes:
      name: `cosine`, `linear`, `piecewise` or `constant` after the warm-up.
      warmup_epochs: length of the linear warm-up from zero.
      final_fraction: where cosine and linear end, as a fraction of the peak.
      milestones: where piecewise drops, as fractions of the whole training.
      drop: factor of each drop.
    """

    name: Literal["cosine", "linear", "piecewise", "constant"] = "cosine"
    warmup_epochs: float = 1.0
    final_fraction: float = 0.0
    milestones: tuple[float, ...] = (0.5, 0.75)
    drop: float = 0.1


@dataclass(frozen=True)
class TrainRecipe:
    """How long, in what batches, and what is kept.

    Attributes:
      epochs: number of epochs; the largest number where training may end sooner.
      batch_size: examples a step, over all devices.
      eval_batch_size: examples a batch of evaluation; does not change any figure.
      until: `epochs`; or `converged`: the learning rate stays constant after the warm-up,
        drops by 10 whenever the training loss has not fallen by 1 % within `patience`
        epochs, and training ends when it does not fall after two drops.
      patience: with `epochs`, stop when validation has not improved for so many epochs (0:
        never); with `converged`, length of a plateau (0: 5 epochs).
      select: which state is evaluated and exported: `last` or `best` (on validation).
      sampling: `uniform`, each example once an epoch; `balanced`, each class equally
        often: examples of small classes come several times, some of large ones not; or
        `identities`, likewise, where a batch holds `images_per_identity` images of each of its
        classes (Hermans et al. 2017), as losses of pairs need.
      images_per_identity: of sampling by `identities`: K; a batch has `batch_size` / K classes.
      sizes: progressive resizing: shorter sides in pixels that augmented training images are
        reduced to, in order, each for an equal share of the epochs, such as `[16, 24, 32]`;
        nothing for the images as they are. Evaluation is at their own size.
      accumulate: the batch is worked through in so many parts, one after the other, for
        little more than the memory of one. The gradient is that of the batch; batch norm
        sees one part at a time ("ghost batch norm"). On a CPU the parts are compiled one by
        one, which takes as many times as long.
      remat: regular expressions for paths of submodules, such as `stage.*/block.*`, whose
        insides are computed again in the backward pass rather than kept: less memory, a
        third more time, the same gradients. XLA's CPU backend undoes it.
      ema: decay of a moving average of parameters and statistics, which is what is then
        validated, evaluated and exported; 0 for none.
      views: of each image whose predictions are averaged when training has ended:
        `one`; `mirror`, it and its mirror image; `mirror-shift`, these, and both shifted
        by a pixel along each diagonal (Jordan 2024), at six times the cost.
      dtype: type of activations: `float32` or `bfloat16`; parameters stay float32.
      precision: of matrix products and convolutions: `default` lets recent GPUs use TF32
        and TPUs bfloat16; `highest` is float32 throughout.
      chunk_steps: steps between two looks of the host; None chooses.
      devices: number of devices the batch is split over; 0 for all (one, on a CPU).
      checkpoint_seconds: least time between two checkpoints that are not a new best.
      compiler_options: options of XLA for the compiled step, such as
        `xla_cpu_experimental_ynn_fusion_type`. Those of the CPU (`xla_cpu_...`) are left
        out on other platforms. They may change results in the last bits and vanish with
        a version of jaxlib.
      tensorboard: also write each epoch's figures for TensorBoard, into the run folder;
        needs the extra `tensorboard`.
      memory_limit: bytes of images that are held in memory (and on the device); larger
        data are read while training.
    """

    epochs: int = 30
    batch_size: int = 64
    eval_batch_size: int = 256
    until: Literal["epochs", "converged"] = "epochs"
    patience: int = 0
    select: Literal["last", "best"] = "last"
    sampling: Literal["uniform", "balanced", "identities"] = "uniform"
    images_per_identity: int = 4
    sizes: tuple[int, ...] = ()
    accumulate: int = 1
    remat: tuple[str, ...] = ()
    ema: float = 0.0
    views: Literal["one", "mirror", "mirror-shift"] = "one"
    dtype: Literal["float32", "bfloat16"] = "float32"
    precision: Literal["default", "highest"] = "default"
    chunk_steps: int | None = None
    devices: int = 0
    checkpoint_seconds: float = 30.0
    compiler_options: Mapping[str, Any] = field(default_factory=dict)
    tensorboard: bool = False
    memory_limit: int = 4 * 2**30
