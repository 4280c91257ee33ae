"""Figures with intervals from predictions; knows no model and no data set."""

from cnn_jax.evaluation.anomaly import anomaly_metrics
from cnn_jax.evaluation.anomaly_maps import FPR_LIMIT, anomaly_map_metrics, au_pro
from cnn_jax.evaluation.anomaly_scores import (
    AnomalyScores,
    CalibrationScores,
    check_calibration_scores,
    scores_type,
)
from cnn_jax.evaluation.au_pimo import FPR_BOUNDS, PerImageOverlap, au_pimo
from cnn_jax.evaluation.by_class import ClassRow, per_class
from cnn_jax.evaluation.calibration import Reliability, calibration_figures, reliability
from cnn_jax.evaluation.classification import (
    classification_metrics,
    confusion_matrix,
    metric_names,
)
from cnn_jax.evaluation.comparison import compare_segmentations, paired_difference
from cnn_jax.evaluation.curves import (
    Band,
    PrecisionRecallCurve,
    RocCurve,
    calibration_curve,
    precision_recall_curve,
    roc_curve,
)
from cnn_jax.evaluation.delong import auroc_interval, delong
from cnn_jax.evaluation.embedding_predictions import (
    CalibrationEmbeddings,
    EmbeddingPredictions,
    embeddings_type,
)
from cnn_jax.evaluation.ensemble import (
    Disagreement,
    Gain,
    disagreement,
    ensemble,
    ensemble_gain,
    mean_logits,
)
from cnn_jax.evaluation.estimate import COVERS, Estimate
from cnn_jax.evaluation.fate import ClassErrors, Confusion, Fate
from cnn_jax.evaluation.hierarchy import Hierarchy, hierarchy_metrics
from cnn_jax.evaluation.identification import (
    Cmc,
    Searches,
    cmc,
    open_set_metrics,
    ranks,
    search,
)
from cnn_jax.evaluation.intervals import bootstrap, proportion, tango, wilson
from cnn_jax.evaluation.lesions import Froc, LesionFigures, components, froc, lesion_figures
from cnn_jax.evaluation.mask_predictions import MaskPredictions, out_of_fold_masks
from cnn_jax.evaluation.measured import Answers
from cnn_jax.evaluation.medmnist import medmnist_figures
from cnn_jax.evaluation.operating import (
    DecisionCurve,
    OperatingFigures,
    decision_curve,
    operating_figures,
)
from cnn_jax.evaluation.ordinal import ordinal_figures
from cnn_jax.evaluation.predictions import (
    CALIBRATION_SPLITS,
    CalibrationPredictions,
    Predictions,
    check_calibration,
    log_probabilities,
    predictions_type,
)
from cnn_jax.evaluation.recognition import (
    leave_one_out,
    people_pairs,
    recognition_metrics,
    recognition_pairs,
    recognition_score,
)
from cnn_jax.evaluation.retrieval import Retrieved, retrieval_metrics, retrieve
from cnn_jax.evaluation.seeds import (
    figure,
    mean_figure,
    mean_figures,
    minimum_detectable_effect,
    out_of_fold,
    over_seeds,
    over_seeds_and_test_sets,
    power,
    runs_needed,
)
from cnn_jax.evaluation.segmentation import (
    EMPTY_POLICY,
    SEGMENTATION_IN_PERCENT,
    CaseFigures,
    case_figures,
    segmentation_metrics,
)
from cnn_jax.evaluation.selective import RiskCoverage, risk_coverage
from cnn_jax.evaluation.significance import Significance, holm, mcnemar, sign_flip
from cnn_jax.evaluation.surfaces import hausdorff, normalised_surface_dice
from cnn_jax.evaluation.templates import Templates, add_flipped, make_templates, unit_embeddings
from cnn_jax.evaluation.verdict import Verdict, compare
from cnn_jax.evaluation.verification import (
    ErrorCurve,
    SubgroupRow,
    error_curve,
    verification_by_subgroup,
    verification_metrics,
    verification_rates,
)
from cnn_jax.evaluation.verification_folds import FoldFigure, fold_accuracy, fold_tar_at_far
from cnn_jax.evaluation.verification_intervals import disjoint_impostor_pairs
from cnn_jax.evaluation.verification_pairs import (
    CalibrationPairScores,
    PairScores,
    check_calibration_pairs,
    pair_scores,
    pairs_type,
)

__all__ = [
    "CALIBRATION_SPLITS",
    "COVERS",
    "EMPTY_POLICY",
    "FPR_BOUNDS",
    "FPR_LIMIT",
    "SEGMENTATION_IN_PERCENT",
    "AnomalyScores",
    "Answers",
    "Band",
    "CalibrationEmbeddings",
    "CalibrationPairScores",
    "CalibrationPredictions",
    "CalibrationScores",
    "CaseFigures",
    "ClassErrors",
    "ClassRow",
    "Cmc",
    "Confusion",
    "DecisionCurve",
    "Disagreement",
    "EmbeddingPredictions",
    "ErrorCurve",
    "Estimate",
    "Fate",
    "FoldFigure",
    "Froc",
    "Gain",
    "Hierarchy",
    "LesionFigures",
    "MaskPredictions",
    "OperatingFigures",
    "PairScores",
    "PerImageOverlap",
    "PrecisionRecallCurve",
    "Predictions",
    "Reliability",
    "Retrieved",
    "RiskCoverage",
    "RocCurve",
    "Searches",
    "Significance",
    "SubgroupRow",
    "Templates",
    "Verdict",
    "add_flipped",
    "anomaly_map_metrics",
    "anomaly_metrics",
    "au_pimo",
    "au_pro",
    "auroc_interval",
    "bootstrap",
    "calibration_curve",
    "calibration_figures",
    "case_figures",
    "check_calibration",
    "check_calibration_pairs",
    "check_calibration_scores",
    "classification_metrics",
    "cmc",
    "compare",
    "compare_segmentations",
    "components",
    "confusion_matrix",
    "decision_curve",
    "delong",
    "disagreement",
    "disjoint_impostor_pairs",
    "embeddings_type",
    "ensemble",
    "ensemble_gain",
    "error_curve",
    "figure",
    "fold_accuracy",
    "fold_tar_at_far",
    "froc",
    "hausdorff",
    "hierarchy_metrics",
    "holm",
    "leave_one_out",
    "lesion_figures",
    "log_probabilities",
    "make_templates",
    "mcnemar",
    "mean_figure",
    "mean_figures",
    "mean_logits",
    "medmnist_figures",
    "metric_names",
    "minimum_detectable_effect",
    "normalised_surface_dice",
    "open_set_metrics",
    "operating_figures",
    "ordinal_figures",
    "out_of_fold",
    "out_of_fold_masks",
    "over_seeds",
    "over_seeds_and_test_sets",
    "pair_scores",
    "paired_difference",
    "pairs_type",
    "people_pairs",
    "per_class",
    "power",
    "precision_recall_curve",
    "predictions_type",
    "proportion",
    "ranks",
    "recognition_metrics",
    "recognition_pairs",
    "recognition_score",
    "reliability",
    "retrieval_metrics",
    "retrieve",
    "risk_coverage",
    "roc_curve",
    "runs_needed",
    "scores_type",
    "search",
    "segmentation_metrics",
    "sign_flip",
    "tango",
    "unit_embeddings",
    "verification_by_subgroup",
    "verification_metrics",
    "verification_rates",
    "wilson",
]
