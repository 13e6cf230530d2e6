"""How good words and masks are: labels, captions, choices and masks, each as its official scripts have it."""

from .masks import MaskScores as MaskScores
from .masks import PixelQAResult as PixelQAResult
from .masks import VideoScore as VideoScore
from .masks import boundary_accuracy as boundary_accuracy
from .masks import j_and_f as j_and_f
from .masks import overlap as overlap
from .masks import pixel_qa_score as pixel_qa_score
from .masks import region_similarity as region_similarity
from .masks import volume_overlap as volume_overlap
