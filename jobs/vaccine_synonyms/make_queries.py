"""Make queries.parquet and golden.parquet: COVID vaccines and vaccine platforms, in 57 languages.

Languages are BCP 47 tags; their English names come from langcodes, and their words for vaccine
stand below. The golden rows are names that any right list must have; they were compiled by hand for this project.

    pip install langcodes language_data
    python jobs/vaccine_synonyms/make_queries.py
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import langcodes
import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent

VACCINES = [
    "Pfizer-BioNTech",
    "Moderna",
    "AstraZeneca",
    "Janssen",
    "Sputnik V",
    "Sputnik Light",
    "Sinopharm BIBP",
    "CoronaVac",
    "Covaxin",
    "Novavax",
    "Convidecia",
    "Soberana 02",
    "Abdala",
    "EpiVacCorona",
    "ZF2001",
    "Corbevax",
    "ZyCoV-D",
]
# Such as stand for themselves in a text: the name is a term, too.
PLATFORMS = ["mRNA vaccine", "viral vector vaccine", "inactivated vaccine", "protein subunit vaccine"]
# Trade names and code names, which are written so in every language: nobody needs to ask a model for them.
ALIASES = {
    "Pfizer-BioNTech": ["Comirnaty", "BNT162b2", "tozinameran"],
    "Moderna": ["Spikevax", "mRNA-1273", "elasomeran"],
    "AstraZeneca": ["Vaxzevria", "Covishield", "AZD1222", "ChAdOx1-S", "ChAdOx1 nCoV-19"],
    "Janssen": ["Jcovden", "Ad26.COV2.S"],
    "Sputnik V": ["Gam-COVID-Vac"],
    "Sinopharm BIBP": ["BBIBP-CorV"],
    "Covaxin": ["BBV152"],
    "Novavax": ["Nuvaxovid", "Covovax", "NVX-CoV2373"],
    "Convidecia": ["Ad5-nCoV"],
    "Soberana 02": ["FINLAY-FR-2"],
    "Abdala": ["CIGB-66"],
    "ZF2001": ["Zifivax"],
    "Corbevax": ["BECOV2D"],
}
# Language; its word for vaccine, as it stands in a dictionary. Compiled by hand for this project; 27 of them are also among the
# keywords that Unicode CLDR 48.2 has for the picture of a syringe (npm package cldr-annotations-full).
WORDS = dict(
    line.split(" ", 1)
    for line in """
am ክትባት
ar لقاح
az vaksin
bg ваксина
bn টিকা
bs vakcina
ca vacuna
cs vakcína
da vaccine
de Impfstoff
el εμβόλιο
en vaccine
es vacuna
et vaktsiin
fa واکسن
fi rokote
fr vaccin
gu રસી
he חיסון
hi टीका
hr cjepivo
hu vakcina
hy պատվաստանյութ
id vaksin
it vaccino
ja ワクチン
ka ვაქცინა
kk вакцина
ko 백신
lt vakcina
lv vakcīna
mk вакцина
mn вакцин
mr लस
ms vaksin
my ကာကွယ်ဆေး
nb vaksine
ne खोप
nl vaccin
pl szczepionka
pt vacina
ro vaccin
ru вакцина
sk vakcína
sl cepivo
sq vaksinë
sr вакцина
sv vaccin
sw chanjo
ta தடுப்பூசி
th วัคซีน
tr aşı
uk вакцина
ur ویکسین
vi vắc-xin
zh-Hans 疫苗
zh-Hant 疫苗
""".strip().splitlines()
)

# Vaccine; language; a name that any right list must have.
GOLDEN = """
Pfizer-BioNTech; en; Comirnaty
Pfizer-BioNTech; ko; 화이자
Pfizer-BioNTech; ja; ファイザー
Pfizer-BioNTech; ar; فايزر
Pfizer-BioNTech; he; פייזר
Pfizer-BioNTech; ru; Пфайзер
Moderna; en; Spikevax
Moderna; ko; 모더나
Moderna; ja; モデルナ
Moderna; th; โมเดอร์นา
Moderna; zh-Hans; 莫德纳
Moderna; zh-Hant; 莫德納
AstraZeneca; en; Vaxzevria
AstraZeneca; hi; कोविशील्ड
Novavax; en; Nuvaxovid
Sputnik V; ru; Спутник V
Sputnik Light; ru; Спутник Лайт
EpiVacCorona; ru; ЭпиВакКорона
CoronaVac; zh-Hans; 克尔来福
Convidecia; zh-Hans; 克威莎
mRNA vaccine; de; mRNA-Impfstoff
mRNA vaccine; ru; мРНК-вакцина
mRNA vaccine; ja; mRNAワクチン
viral vector vaccine; de; Vektorimpfstoff
inactivated vaccine; zh-Hans; 灭活疫苗
inactivated vaccine; ja; 不活化ワクチン
"""


def queries() -> pa.Table:
    """One row for each vaccine or platform and language."""
    pairs = [(vaccine, tag) for vaccine in [*VACCINES, *PLATFORMS] for tag in WORDS]
    return pa.table(
        {
            "vaccine": [vaccine for vaccine, _ in pairs],
            "language": [tag for _, tag in pairs],
            "language_name": [langcodes.Language.get(tag).display_name() for _, tag in pairs],
            "word": [WORDS[tag] for _, tag in pairs],
            "aliases": pa.array([ALIASES.get(vaccine, []) for vaccine, _ in pairs], pa.list_(pa.string())),
        },
    )


def golden() -> pa.Table:
    """The names that must be there, as the predictions that hold them."""
    rows = [line.split("; ") for line in GOLDEN.strip().splitlines()]
    return pa.table(
        {
            "vaccine": [vaccine for vaccine, _, _ in rows],
            "language": [tag for _, tag, _ in rows],
            "answer": [json.dumps({"names": [name]}, ensure_ascii=False) for _, _, name in rows],
        },
    )


def main() -> None:
    """Write both files beside this script."""
    parser = argparse.ArgumentParser(description="Make queries.parquet and golden.parquet.")
    parser.add_argument("--out", type=Path, default=HERE)
    out: Path = parser.parse_args().out
    for name, table in {"queries": queries(), "golden": golden()}.items():
        pq.write_table(table, out / f"{name}.parquet", compression="zstd")
        print(f"{name}.parquet: {table.num_rows} rows")


if __name__ == "__main__":
    main()
