"""Tests of the choice between bfloat16 and float32 on a CPU, with processors and measurements that a test makes up."""

import json

import jax
import pytest

from tunevlseg_jax.runtime import cpu_products

ZEN4 = "processor\t: 0\nmodel name\t: Fast 9\nflags\t\t: fpu avx512f avx512_bf16\n\nprocessor\t: 1\n"


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """A processor with bfloat16 products; the list has the width of each measurement, and the next ratio."""
    asked, ratio = [], [0.55]
    (tmp_path / "cpuinfo").write_text(ZEN4)
    monkeypatch.setattr(cpu_products, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(cpu_products, "measure", lambda width: (asked.append(width), ratio[0])[1])
    monkeypatch.setenv("TUNEVLSEG_CACHE", str(tmp_path / "cache"))
    jax.config.update("jax_default_matmul_precision", None)
    yield asked, ratio, tmp_path
    jax.config.update("jax_default_matmul_precision", "highest")


def test_a_measurement_decides_once(measured):
    """Another width is measured by itself, and what was measured stays, although the machine is busy now."""
    asked, ratio, folder = measured
    assert cpu_products.verdict(64) == (True, "a bfloat16 product takes 0.55 of a float32 one on this processor")
    ratio[0] = 0.95
    assert cpu_products.verdict(64)[0] and not cpu_products.verdict(512)[0]
    assert asked == [64, 512]
    kept = json.loads((folder / "cache" / cpu_products.FILE).read_text())
    assert sorted(kept.values()) == [0.55, 0.95] and all(key.startswith("Fast 9, jax ") for key in kept)


@pytest.mark.parametrize("content", ["[]", "{", '{"x": 1}'])
def test_a_broken_file_is_measured_again(measured, content):
    asked, _, folder = measured
    (folder / "cache").mkdir()
    (folder / "cache" / cpu_products.FILE).write_text(content)
    assert cpu_products.verdict(64)[0] and cpu_products.verdict(64)[0]
    assert asked == [64]


def test_a_folder_that_takes_no_files(measured, monkeypatch):
    asked, _, folder = measured
    (folder / "file").write_text("")
    monkeypatch.setenv("TUNEVLSEG_CACHE", str(folder / "file"))
    assert cpu_products.verdict(64)[0] and asked == [64]


def test_nothing_is_measured_without_the_instructions(measured, monkeypatch):
    """Nor where the processor can't be read, nor where jax was set to float32 products."""
    asked, _, folder = measured
    (folder / "cpuinfo").write_text(ZEN4.replace("avx512_bf16", "avx512_vnni"))
    assert cpu_products.verdict(64) == (False, "this processor doesn't multiply bfloat16 (AVX512-BF16, AMX)")
    monkeypatch.setattr(cpu_products, "CPU_INFO", folder / "none")
    assert not cpu_products.verdict(64)[0]
    jax.config.update("jax_default_matmul_precision", "highest")
    assert cpu_products.verdict(64) == (False, "jax_default_matmul_precision is highest")
    assert not asked


def test_the_measurement_is_a_ratio_of_times(monkeypatch):
    """Of a clock that takes twice as long for float32."""
    monkeypatch.setattr(cpu_products, "ROWS", 4)
    ticks = iter([0.0, 2.0, 0.0, 1.0] * (cpu_products.TURNS + 1))
    monkeypatch.setattr(cpu_products, "perf_counter", lambda: next(ticks))
    assert cpu_products.measure(8) == 0.5
