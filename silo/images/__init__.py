"""Images: references, transport (skopeo), content store, unpacked layers, archives, garbage collection.

data_root/
  blobs/sha256/<hex>   manifests, configs and packed layers, by digest
  layers/<hex>/        unpacked layers, by diff id
  staging/             work in progress; rubbish after a crash
"""

from silo.images.limits import ImageLimits
from silo.images.records import ImageRecord
from silo.images.store import LocalImageStore

__all__ = ["LocalImageStore", "ImageRecord", "ImageLimits"]
