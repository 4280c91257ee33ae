"""Public data sets known by name: where they lie, their class names, licence and citation."""

from __future__ import annotations

from dataclasses import dataclass

# What the note on them says of patients and the like that the files do not name.
CANNOT_BE_TOLD = "cannot be told apart"


@dataclass(frozen=True)
class KnownSet:
    """What the sources of a public data set state.

    Attributes:
      licence, citation: as the source states them.
      folders: names under which it is distributed, beside its own.
      classes: names of the classes where its files do not hold them.
      positive: the class that is looked for, where there is one.
      not_told_apart: what several images may be of without the files saying which, such as
        `patients`; empty where each image stands for itself, or the parts keep them apart.
    """

    licence: str
    citation: str
    folders: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    positive: str | None = None
    not_told_apart: str = ""

    def notes(self, name: str) -> tuple[str, ...]:
        """What a reader of figures on the set, which goes by `name`, must know; a sentence each."""
        what = self.not_told_apart
        if not what:
            return ()
        return (
            f"{what.capitalize()} {CANNOT_BE_TOLD} in {name}: test images may be of {what} with "
            "other images in train, so that figures on test are optimistic.",
        )


_MEDMNIST_CITATION = "Yang et al. MedMNIST v2. Scientific Data 10:41, 2023"
_ORGANS = (
    "bladder",
    "left femur",
    "right femur",
    "heart",
    "left kidney",
    "right kidney",
    "liver",
    "left lung",
    "right lung",
    "pancreas",
    "spleen",
)
_CIFAR_CITATION = "Krizhevsky. Learning multiple layers of features from tiny images. 2009"
_CIFAR_LICENCE = "none stated by the authors; photos from the web"

KNOWN = {
    "digits": KnownSet(
        licence="CC BY 4.0",
        citation="Alpaydin, Kaynak. Optical recognition of handwritten digits. UCI Machine "
        "Learning Repository, 1998",
    ),
    "mnist": KnownSet(
        licence="CC BY-SA 3.0 as commonly given",
        citation="LeCun, Bottou, Bengio, Haffner. Gradient-based learning applied to document "
        "recognition. Proc. IEEE 86(11), 1998",
    ),
    "fashion_mnist": KnownSet(
        licence="MIT",
        citation="Xiao, Rasul, Vollgraf. Fashion-MNIST: a novel image dataset for benchmarking "
        "machine learning algorithms. arXiv:1708.07747, 2017",
        classes=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
    ),
    "cifar10": KnownSet(
        licence=_CIFAR_LICENCE,
        citation=_CIFAR_CITATION,
        folders=("cifar-10-batches-bin", "cifar-10-batches-py"),
    ),
    "cifar100": KnownSet(
        licence=_CIFAR_LICENCE,
        citation=_CIFAR_CITATION,
        folders=("cifar-100-binary", "cifar-100-python"),
    ),
    "pneumoniamnist": KnownSet(
        licence="CC BY 4.0",
        citation="Yang et al. MedMNIST v2. Scientific Data 10:41, 2023; Kermany et al. Cell 172, "
        "2018",
        classes=("normal", "pneumonia"),
        positive="pneumonia",
    ),
    "kmnist": KnownSet(
        licence="CC BY-SA 4.0",
        citation="Clanuwat, Bober-Irizar, Kitamoto, Lamb, Yamamoto, Ha. Deep learning for "
        "classical Japanese literature. arXiv:1812.01718, 2018",
        classes=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    ),
    "bloodmnist": KnownSet(
        licence="CC BY 4.0",
        citation=_MEDMNIST_CITATION + "; Acevedo et al. Data in Brief 30, 2020",
        classes=(
            "basophil",
            "eosinophil",
            "erythroblast",
            "immature granulocyte",
            "lymphocyte",
            "monocyte",
            "neutrophil",
            "platelet",
        ),
    ),
    "breastmnist": KnownSet(
        licence="CC BY 4.0",
        citation=_MEDMNIST_CITATION + "; Al-Dhabyani et al. Data in Brief 28, 2020",
        classes=("malignant", "normal or benign"),
        positive="malignant",  # label 0
        not_told_apart="patients",  # images of `busi`, dealt out one by one
    ),
    "chestmnist": KnownSet(
        licence="CC BY 4.0",
        citation=_MEDMNIST_CITATION + "; Wang et al. ChestX-ray8. CVPR 2017",
        classes=(
            "atelectasis",
            "cardiomegaly",
            "effusion",
            "infiltration",
            "mass",
            "nodule",
            "pneumonia",
            "pneumothorax",
            "consolidation",
            "edema",
            "emphysema",
            "fibrosis",
            "pleural thickening",
            "hernia",
        ),
    ),
    "dermamnist": KnownSet(
        licence="CC BY-NC 4.0",
        citation=_MEDMNIST_CITATION + "; Tschandl, Rosendahl, Kittler. HAM10000. Scientific Data "
        "5:180161, 2018",
        classes=(
            "actinic keratoses and intraepithelial carcinoma",
            "basal cell carcinoma",
            "benign keratosis-like lesions",
            "dermatofibroma",
            "melanoma",
            "melanocytic nevi",
            "vascular lesions",
        ),
        # Dealt out by image: Abhishek, Jain, Hamarneh. Scientific Data 12:196, 2025.
        not_told_apart="lesions",
    ),
    "octmnist": KnownSet(
        licence="CC BY 4.0",
        citation=_MEDMNIST_CITATION + "; Kermany et al. Cell 172, 2018",
        classes=("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
    ),
    "pathmnist": KnownSet(
        licence="CC BY 4.0",
        citation=_MEDMNIST_CITATION + "; Kather et al. PLOS Medicine 16(1), 2019",
        classes=(
            "adipose",
            "background",
            "debris",
            "lymphocytes",
            "mucus",
            "smooth muscle",
            "normal colon mucosa",
            "cancer-associated stroma",
            "colorectal adenocarcinoma epithelium",
        ),
    ),
    "retinamnist": KnownSet(
        licence="CC BY 4.0",
        citation=_MEDMNIST_CITATION + "; DeepDRiD. ISBI 2020",
    ),
    **{
        f"organ{view}mnist": KnownSet(
            licence="CC BY 4.0",
            citation=_MEDMNIST_CITATION + "; Bilic et al. The liver tumor segmentation benchmark "
            "(LiTS). Medical Image Analysis 84, 2023; Xu et al. IEEE TMI 38(8), 2019",
            classes=_ORGANS,
        )
        for view in ("a", "c", "s")
    },
    "tissuemnist": KnownSet(
        licence="CC BY 4.0",
        citation=_MEDMNIST_CITATION + "; Ljosa, Sokolnicki, Carpenter. Nature Methods 9, 2012 "
        "(BBBC051)",
        classes=(
            "collecting duct, connecting tubule",
            "distal convoluted tubule",
            "glomerular endothelial cells",
            "interstitial endothelial cells",
            "leukocytes",
            "podocytes",
            "proximal tubule segments",
            "thick ascending limb",
        ),
    ),
    "lfw": KnownSet(
        licence="research only; press photos of identifiable people; no commercial face "
        "recognition",
        citation="Huang, Ramesh, Berg, Learned-Miller. Labeled Faces in the Wild. UMass TR 07-49, "
        "2007; Huang, Mattar, Lee, Learned-Miller. NIPS 2012",
    ),
    "orl_faces": KnownSet(
        licence="free, with credit to AT&T Laboratories, Cambridge",
        citation="Samaria, Harter. Parameterisation of a stochastic model for human face "
        "identification. WACV 1994",
    ),
    "brain_tumor_mri": KnownSet(
        licence="none stated in the source",
        citation="Bhuvaji, Kadam, Bhumkar, Dedge, Kanchan. Brain Tumor Classification (MRI). "
        "Kaggle 2020",
        not_told_apart="patients",
    ),
    "magnetic_tile": KnownSet(
        licence="free for academic research, cite; no commercial use",
        citation="Huang, Qiu, Yuan. Surface defect saliency of magnetic tile. The Visual Computer "
        "36, 2020",
    ),
    "busi": KnownSet(
        licence="free for research, cite",
        citation="Al-Dhabyani, Gomaa, Khaled, Fahmy. Dataset of breast ultrasound images. Data in "
        "Brief 28, 2020",
        not_told_apart="patients",
    ),
    "grocery_store": KnownSet(
        licence="MIT",
        citation="Klasson, Zhang, Kjellstrom. A hierarchical grocery store image dataset. "
        "WACV 2019",
    ),
    "flowers5": KnownSet(
        licence="none; rights with the owners of the photos",
        citation="Mamaev. Flowers Recognition. Kaggle",
    ),
    "gtsrb": KnownSet(
        licence="free for research; CC0 as commonly given",
        citation="Stallkamp, Schlipsing, Salmen, Igel. Man vs. computer: benchmarking machine "
        "learning algorithms for traffic sign recognition. Neural Networks 32, 2012",
        folders=("GTSRB",),
    ),
    "oxford_pets": KnownSet(
        licence="CC BY-SA 4.0; rights with the owners of the photos",
        citation="Parkhi, Vedaldi, Zisserman, Jawahar. Cats and dogs. CVPR 2012",
        folders=("oxford-iiit-pet", "oxford_iiit_pet"),
    ),
    "cub": KnownSet(
        licence="non-commercial research and education; rights with the owners of the photos",
        citation="Wah, Branson, Welinder, Perona, Belongie. The Caltech-UCSD Birds-200-2011 "
        "dataset. CNS-TR-2011-001, 2011",
        folders=("CUB_200_2011",),
    ),
}


def plain_name(name: str) -> str:
    """A name without case and separators, so that `Fashion-MNIST` is `fashion_mnist`."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def known_set(name: str) -> tuple[str, KnownSet] | None:
    """The known set of that name or folder name, and the name it goes by; None if unknown."""
    for own, known in KNOWN.items():
        if plain_name(name) in {plain_name(alias) for alias in (own, *known.folders)}:
            return own, known
    return None
