import pytest
from PIL import Image

from collagan_dist.data.readers import label_maps
from collagan_dist.errors import DataError
from collagan_dist.types import PartMasks
from tests.data.peak_memory import grown, saved


def test_a_large_label_map_is_refused_from_its_header(tmp_path):
    """Of the wrong size and of one mask too; in memory they would need 144 MB."""
    large = saved(tmp_path, Image.new("L", (12000, 12000), 3), "m_skin.png")
    with pytest.raises(DataError, match=r"m_skin.png: the label map is 12000x12000, its picture 450x500"):
        label_maps.read_label_map(str(large), (500, 450))
    with pytest.raises(DataError, match=r"m_skin.png: the mask is 12000x12000"):
        label_maps.read_label_map(PartMasks(str(tmp_path / "m")), (1000, 1000))
    read = "label_maps.read_label_map({}, (500, 500))"
    for labels in ("sys.argv[1]", "PartMasks(sys.argv[1].removesuffix('_skin.png'))"):
        assert grown(read.format(labels), "DataError", large) < 50
