"""Make queries.parquet, common fruits, each with its botanical fruit type, and golden.parquet, the types alone.

The list is in this file and was compiled by hand for this project, with the usual
sense of the terms in botanical reference works (such as R.W. Spjut, A systematic
treatment of fruit types, 1994). The README says how each label is meant, what was left
out, and where usage differs.

    python jobs/fruit_families/make_queries.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent

# The examples in job.yaml. They must not be rows of the list as well.
SHOWN = {
    "peach",
    "pear",
    "grape",
    "honeydew",
    "lemon",
    "raspberry",
    "pineapple",
    "hazelnut",
    "pea",
}

# One line for each fruit: name; scientific name; note. An x marks a hybrid.
DRUPES = """
acai; Euterpe oleracea
acerola; Malpighia emarginata; several stones
almond; Prunus amygdalus; the part eaten is the seed
ambarella; Spondias dulcis
american plum; Prunus americana
apricot; Prunus armeniaca
bayberry; Morella pensylvanica
beach plum; Prunus maritima
bearberry; Arctostaphylos uva-ursi; several stones
beautyberry; Callicarpa americana; several stones
betel nut; Areca catechu; called a nut in cooking and trade
bignay; Antidesma bunius
black cherry; Prunus serotina
black huckleberry; Gaylussacia baccata; ten small stones; called a berry in everyday use
blue quandong; Elaeocarpus angustifolius
bunchberry; Cornus canadensis
candlenut; Aleurites moluccanus; called a nut in cooking and trade
cashew; Anacardium occidentale; the fruit is the nut-like part; the apple is its stalk
cherry plum; Prunus cerasifera
chinaberry; Melia azedarach
chinese olive; Canarium album
chokecherry; Prunus virginiana
coco plum; Chrysobalanus icaco
coconut; Cocos nucifera; called a nut in cooking and trade
coffee cherry; Coffea arabica; two stones; called a berry by some
cornelian cherry; Cornus mas
crowberry; Empetrum nigrum; several stones; called a berry in everyday use
damson; Prunus insititia
desert date; Balanites aegyptiaca
elderberry; Sambucus nigra; several stones; called a berry by some
gandaria; Bouea macrophylla
greengage; Prunus domestica subsp. italica
guelder rose; Viburnum opulus
hackberry; Celtis occidentalis
holly; Ilex aquifolium; several stones; called a berry in everyday use
indian jujube; Ziziphus mauritiana
japanese plum; Prunus salicina
jujube; Ziziphus jujuba
kakadu plum; Terminalia ferdinandiana
mango; Mangifera indica
marula; Sclerocarya birrea
mirabelle; Prunus domestica subsp. syriaca
nance; Byrsonima crassifolia
nannyberry; Viburnum lentago
nectarine; Prunus persica var. nucipersica
neem; Azadirachta indica
oil palm; Elaeis guineensis
olive; Olea europaea
otaheite gooseberry; Phyllanthus acidus
palmyra fruit; Borassus flabellifer; three stones
peach palm; Bactris gasipaes
pequi; Caryocar brasiliense
phalsa; Grewia asiatica
pili nut; Canarium ovatum; called a nut in cooking and trade
pistachio; Pistacia vera; the part eaten is the seed
plum; Prunus domestica
purple mombin; Spondias purpurea
quandong; Santalum acuminatum
safou; Dacryodes edulis
sebesten; Cordia myxa
sloe; Prunus spinosa
sour cherry; Prunus cerasus
spicebush; Lindera benzoin
sumac; Rhus coriaria
sweet cherry; Prunus avium
tropical almond; Terminalia catappa
ume; Prunus mume
wild mango; Irvingia gabonensis
yangmei; Morella rubra
yellow mombin; Spondias mombin
"""

POMES = """
apple; Malus domestica
asian pear; Pyrus pyrifolia
azarole; Crataegus azarolus; seeds in small stones; called a drupe by some
black chokeberry; Aronia melanocarpa
chinese hawthorn; Crataegus pinnatifida; seeds in small stones; called a drupe by some
chinese quince; Pseudocydonia sinensis
cotoneaster; Cotoneaster horizontalis; seeds in small stones; called a drupe by some
crab apple; Malus sylvestris
firethorn; Pyracantha coccinea; seeds in small stones; called a drupe by some
hawthorn; Crataegus monogyna; seeds in small stones; called a drupe by some
japanese quince; Chaenomeles japonica
loquat; Eriobotrya japonica
mayhaw; Crataegus aestivalis; seeds in small stones; called a drupe by some
medlar; Mespilus germanica; seeds in small stones; called a drupe by some
quince; Cydonia oblonga
red chokeberry; Aronia arbutifolia
rowan; Sorbus aucuparia
saskatoon; Amelanchier alnifolia
service tree fruit; Sorbus domestica
siberian crab apple; Malus baccata
tejocote; Crataegus mexicana; seeds in small stones; called a drupe by some
toyon; Heteromeles arbutifolia
whitebeam; Aria edulis
"""

BERRIES = """
abiu; Pouteria caimito
achacha; Garcinia humilis
american persimmon; Diospyros virginiana
araza; Eugenia stipitata
avocado; Persea americana; one seed without a stone; called a drupe by some
babaco; Vasconcellea x heilbornii
banana; Musa acuminata
banana passionfruit; Passiflora tripartita
barberry; Berberis vulgaris
bell pepper; Capsicum annuum; hollow and rather dry for a berry
bilberry; Vaccinium myrtillus
bilimbi; Averrhoa bilimbi
black sapote; Diospyros nigra
blackcurrant; Ribes nigrum
blueberry; Vaccinium corymbosum
calafate; Berberis microphylla
camu camu; Myrciaria dubia
canistel; Pouteria campechiana
cape gooseberry; Physalis peruviana
cranberry; Vaccinium macrocarpon
date-plum; Diospyros lotus
dragon fruit; Selenicereus undatus
eggplant; Solanum melongena
feijoa; Feijoa sellowiana
giant granadilla; Passiflora quadrangularis
goji berry; Lycium barbarum
golden currant; Ribes aureum
gooseberry; Ribes uva-crispa
guava; Psidium guajava
hardy kiwi; Actinidia arguta
honeyberry; Lonicera caerulea
jaboticaba; Plinia cauliflora
jambolan; Syzygium cumini; one seed; called a drupe by some
java apple; Syzygium samarangense
jostaberry; Ribes x nidigrolaria
kei apple; Dovyalis caffra
kiwifruit; Actinidia deliciosa
langsat; Lansium domesticum
lingonberry; Vaccinium vitis-idaea
lucuma; Pouteria lucuma
malay apple; Syzygium malaccense
mamey sapote; Pouteria sapota
mangosteen; Garcinia mangostana
maqui; Aristotelia chilensis
maypop; Passiflora incarnata
miracle fruit; Synsepalum dulcificum
muscadine; Vitis rotundifolia
naranjilla; Solanum quitoense
natal plum; Carissa macrocarpa
oregon grape; Berberis aquifolium
papaya; Carica papaya
passion fruit; Passiflora edulis
pepino; Solanum muricatum
persimmon; Diospyros kaki
plantain; Musa x paradisiaca
pomegranate; Punica granatum; leathery berry, also called a balausta
prickly pear; Opuntia ficus-indica
redcurrant; Ribes rubrum
rose apple; Syzygium jambos
sapodilla; Manilkara zapota
star apple; Chrysophyllum cainito
starfruit; Averrhoa carambola
strawberry guava; Psidium cattleyanum
strawberry tree fruit; Arbutus unedo
surinam cherry; Eugenia uniflora
sweet granadilla; Passiflora ligularis
tamarillo; Solanum betaceum
tomatillo; Physalis philadelphica
tomato; Solanum lycopersicum
wampee; Clausena lansium; of the citrus family, without a rind like that of citrus
"""

PEPOS = """
bottle gourd; Lagenaria siceraria
butternut squash; Cucurbita moschata
cantaloupe; Cucumis melo
cassabanana; Sicana odorifera
chayote; Sechium edule; one seed
cucumber; Cucumis sativus
ivy gourd; Coccinia grandis
kiwano; Cucumis metuliferus
monk fruit; Siraitia grosvenorii
pumpkin; Cucurbita pepo
watermelon; Citrullus lanatus
wax gourd; Benincasa hispida
zucchini; Cucurbita pepo
"""

HESPERIDIA = """
bergamot; Citrus x bergamia
bitter orange; Citrus x aurantium
blood orange; Citrus x sinensis
buddha's hand; Citrus medica var. sarcodactylis
calamondin; Citrus x microcarpa
citron; Citrus medica
clementine; Citrus x clementina
desert lime; Citrus glauca
finger lime; Citrus australasica
grapefruit; Citrus x paradisi
kabosu; Citrus sphaerocarpa
key lime; Citrus x aurantiifolia
kumquat; Citrus japonica
limequat; Citrus x floridana
makrut lime; Citrus hystrix
mandarin; Citrus reticulata
meyer lemon; Citrus x meyeri
orange; Citrus x sinensis
persian lime; Citrus x latifolia
pomelo; Citrus maxima
rangpur; Citrus x limonia
rough lemon; Citrus x jambhiri
satsuma; Citrus unshiu
sudachi; Citrus sudachi
sweet lime; Citrus limetta
tangelo; Citrus x tangelo
tangerine; Citrus tangerina
trifoliate orange; Citrus trifoliata
yuzu; Citrus x junos
"""

AGGREGATES = """
arctic raspberry; Rubus arcticus
atemoya; Annona x atemoya
biriba; Annona mucosa
black raspberry; Rubus occidentalis
blackberry; Rubus fruticosus
boysenberry; Rubus ursinus x R. idaeus
cherimoya; Annona cherimola
cloudberry; Rubus chamaemorus
custard apple; Annona reticulata
dewberry; Rubus caesius
ilama; Annona macroprophyllata
loganberry; Rubus x loganobaccus
schisandra; Schisandra chinensis; many berries on a long axis
mock strawberry; Potentilla indica; accessory too: the flesh is not the ovary
musk strawberry; Fragaria moschata; accessory too: the flesh is not the ovary
rose hip; Rosa canina; accessory too: achenes in a fleshy cup
salmonberry; Rubus spectabilis
soursop; Annona muricata
star anise; Illicium verum; a ring of follicles
stone bramble; Rubus saxatilis
strawberry; Fragaria x ananassa; accessory too: the flesh is not the ovary
sugar apple; Annona squamosa
tayberry; Rubus fruticosus x R. idaeus
thimbleberry; Rubus parviflorus
wild strawberry; Fragaria vesca; accessory too: the flesh is not the ovary
wineberry; Rubus phoenicolasius
"""

MULTIPLES = """
african breadfruit; Treculia africana
black mulberry; Morus nigra
breadfruit; Artocarpus altilis
breadnut; Artocarpus camansi; another plant, Brosimum alicastrum, has the same name
cempedak; Artocarpus integer
che; Maclura tricuspidata
cluster fig; Ficus racemosa; syconium
fig; Ficus carica; syconium
hala; Pandanus tectorius; a head of drupes
jackfruit; Artocarpus heterophyllus
kousa dogwood; Cornus kousa; many drupes grown together
marang; Artocarpus odoratissimus
monkey jack; Artocarpus lacucha
monstera; Monstera deliciosa; many berries on a spike
noni; Morinda citrifolia
osage orange; Maclura pomifera
paper mulberry; Broussonetia papyrifera
red mulberry; Morus rubra
sycamore fig; Ficus sycomorus; syconium
white mulberry; Morus alba
"""

NUTS = """
american beechnut; Fagus grandifolia
american chestnut; Castanea dentata
american hazelnut; Corylus americana
beaked hazelnut; Corylus cornuta
beechnut; Fagus sylvatica
bur oak acorn; Quercus macrocarpa
chestnut; Castanea sativa
chinese chestnut; Castanea mollissima
chinquapin; Castanea pumila
cork oak acorn; Quercus suber
english oak acorn; Quercus robur
filbert; Corylus maxima
holm oak acorn; Quercus ilex
japanese chestnut; Castanea crenata
red oak acorn; Quercus rubra
tanoak acorn; Notholithocarpus densiflorus
turkish hazelnut; Corylus colurna
white oak acorn; Quercus alba
"""

LEGUMES = """
adzuki bean; Vigna angularis
african locust bean; Parkia biglobosa
bambara groundnut; Vigna subterranea; ripens underground, does not open
broad bean; Vicia faba
carob; Ceratonia siliqua
chickpea; Cicer arietinum
common bean; Phaseolus vulgaris
cowpea; Vigna unguiculata
guamuchil; Pithecellobium dulce
honey locust; Gleditsia triacanthos
hyacinth bean; Lablab purpureus
ice cream bean; Inga edulis
jack bean; Canavalia ensiformis
jatoba; Hymenaea courbaril
lentil; Lens culinaris
lima bean; Phaseolus lunatus
mesquite; Prosopis glandulosa
mung bean; Vigna radiata
peanut; Arachis hypogaea; called a nut in cooking and trade
pigeon pea; Cajanus cajan
runner bean; Phaseolus coccineus
soybean; Glycine max
stink bean; Parkia speciosa
tamarind; Tamarindus indica
tepary bean; Phaseolus acutifolius
winged bean; Psophocarpus tetragonolobus
"""

FAMILIES = {
    "drupe": DRUPES,
    "pome": POMES,
    "berry": BERRIES,
    "pepo": PEPOS,
    "hesperidium": HESPERIDIA,
    "aggregate": AGGREGATES,
    "multiple": MULTIPLES,
    "nut": NUTS,
    "legume": LEGUMES,
}

SCHEMA = pa.schema(
    [
        ("fruit", pa.string()),
        ("latin", pa.string()),
        ("family", pa.string()),
        ("note", pa.string()),
    ],
)


def read_list() -> list[dict[str, str]]:
    """Read the lists above into rows, sorted by name."""
    rows: list[dict[str, str]] = []
    for family, text in FAMILIES.items():
        for line in text.strip().splitlines():
            fruit, latin, *notes = line.split("; ")
            row = {"fruit": fruit, "latin": latin, "family": family}
            rows.append(row | {"note": "; ".join(notes)})
    return sorted(rows, key=lambda row: row["fruit"])


def check(rows: list[dict[str, str]]) -> None:
    """Refuse a fruit listed twice, not in lower case, or shown as an example."""
    names = [row["fruit"] for row in rows]
    twice = sorted({name for name in names if names.count(name) > 1})
    upper = [name for name in names if name != name.lower()]
    shown = sorted(SHOWN.intersection(names))
    if twice or upper or shown:
        msg = f"Listed twice: {twice}; not lower case: {upper}; examples: {shown}."
        raise ValueError(msg)


def main() -> None:
    """Write queries.parquet and golden.parquet beside this script."""
    parser = argparse.ArgumentParser(description="Make queries.parquet and golden.parquet.")
    parser.add_argument("--out", type=Path, default=HERE, help="the folder that they are written to")
    out: Path = parser.parse_args().out

    rows = read_list()
    check(rows)
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    pq.write_table(table, out / "queries.parquet", compression="zstd")
    golden = pa.table({"fruit": table["fruit"], "answer": table["family"]})
    pq.write_table(golden, out / "golden.parquet", compression="zstd")
    print(f"queries.parquet and golden.parquet: {len(rows)} rows")


if __name__ == "__main__":
    main()
