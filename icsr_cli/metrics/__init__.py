"""Measures of what was learnt: retrieval (mAP, CMC, mINP, re-ranking) and the quality of labels."""

from icsr_cli.metrics.match_thresholds import Threshold, thresholds
from icsr_cli.metrics.quality import LabelQuality, judge, label_quality
from icsr_cli.metrics.ranking import Ranking, rank, rank_by_camera, rank_distances, rank_distances_by_camera
from icsr_cli.metrics.reranking import rerank

__all__ = [
    "LabelQuality",
    "Ranking",
    "Threshold",
    "judge",
    "label_quality",
    "rank",
    "rank_by_camera",
    "rank_distances",
    "rank_distances_by_camera",
    "rerank",
    "thresholds",
]
