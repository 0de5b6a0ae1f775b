"""The public sets by name."""

from __future__ import annotations

from tunevlseg_jax.data.builders.bkai import Bkai
from tunevlseg_jax.data.builders.busi import Busi
from tunevlseg_jax.data.builders.camus import Camus
from tunevlseg_jax.data.builders.chexlocalize import CheXlocalize
from tunevlseg_jax.data.builders.cityscapes import Cityscapes
from tunevlseg_jax.data.builders.clinicdb import ClinicDB
from tunevlseg_jax.data.builders.dfu2022 import Dfu2022
from tunevlseg_jax.data.builders.isic2016 import Isic2016
from tunevlseg_jax.data.builders.kvasir import Kvasir
from tunevlseg_jax.data.builders.public import PublicSet
from tunevlseg_jax.data.builders.voc2012 import Voc2012

PUBLIC: dict[str, type[PublicSet]] = {
    builder.name: builder
    for builder in (Kvasir, ClinicDB, Bkai, Isic2016, Dfu2022, Camus, Busi, CheXlocalize, Cityscapes, Voc2012)
}
