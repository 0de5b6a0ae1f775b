"""The public sets by name."""

from tunevlseg_jax.data.builders.bkai import BKAI
from tunevlseg_jax.data.builders.busi import BUSI
from tunevlseg_jax.data.builders.camus import CAMUS
from tunevlseg_jax.data.builders.chexlocalize import CHEXLOCALIZE
from tunevlseg_jax.data.builders.cityscapes import CITYSCAPES
from tunevlseg_jax.data.builders.clinicdb import CLINICDB
from tunevlseg_jax.data.builders.dfu2022 import DFU2022
from tunevlseg_jax.data.builders.isic2016 import ISIC2016
from tunevlseg_jax.data.builders.kvasir import KVASIR
from tunevlseg_jax.data.builders.voc2012 import VOC2012

PUBLIC = {
    chosen.name: chosen
    for chosen in (KVASIR, CLINICDB, BKAI, ISIC2016, DFU2022, CAMUS, BUSI, CHEXLOCALIZE, CITYSCAPES, VOC2012)
}
