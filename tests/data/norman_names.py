"""Names that the originals' splitters were run on, and what they gave."""

import hashlib


def words(text):
  return text.split()


# Singles of Norman 2019 that GEARS' file (also) holds as `ctrl+X`.
REVERSED = words("""
BAK1 C19orf26 CBFA2T3 CDKN1A CDKN1B CEBPA CEBPB CEBPE CLDN6 CNN1 COL2A1 DLX2
ELMSAN1 ETS2 FEV FOXA1 FOXF1 FOXL2 HOXB9 HOXC13 IER5L IGDCC3 IKZF3 ISL2 KIF2C
KLF1 MAP2K6 MAP7D1 MAPK1 MEIS1 OSR2 PRTG PTPN12 PTPN9 RUNX1T1 SAMD1 SET SLC38A2
SNAI1 SPI1 STIL TBX2 TBX3 TGFBR2 UBASH3A UBASH3B ZBTB1 ZBTB25
""")
# Conditions that GEARS' own filter drops from it: 276 are left.
FILTERED = (
  'RHOXF2BB+ctrl',
  'LYL1+IER5L',
  'ctrl+IER5L',
  'KIAA1804+ctrl',
  'IER5L+ctrl',
  'RHOXF2BB+ZBTB25',
  'RHOXF2BB+SET',
)
# First 16 hex digits of the SHA-256 of the sorted lists of train, val, test.
NORMAN_HASHES = {
  (283, 1): ('cce5de3fdefd2c3f', 'ece5ed7b83424d12', '8a52fbdeafc06f2f'),
  (283, 2): ('2dfb58c4e6a4a715', 'c80d617dafc30b1e', '718613d170a445c4'),
  (276, 1): ('0230c640381af8ff', 'd71dc826652aef2f', '5cd71b0f82e8415b'),
  (276, 2): ('7b17cd05c5ae62f3', 'd97056ce75f83546', '52a17628172c0d58'),
}
TOY = (
  *(f'G{i}+ctrl' for i in range(8)),
  *words('G0+G1 G2+G3 G1+G4 G5+G6 G0+G7 G3+G6'),
)


def norman(shared_data):
  folder = shared_data / 'norman_names'
  singles, doubles = (
    (folder / name).read_text().replace('RHOXF2', 'RHOXF2BB').split()
    for name in ('norman_singles_105.txt', 'norman_doubles_131.txt')
  )
  return singles, doubles


def norman_conditions(shared_data):
  singles, doubles = norman(shared_data)
  # SLC38A2 is there in the reversed orientation only.
  return [
    *(f'{gene}+ctrl' for gene in singles if gene != 'SLC38A2'),
    *(f'ctrl+{gene}' for gene in REVERSED),
    *doubles,
  ]


def hash_names(names):
  text = '\n'.join(sorted(names))
  return hashlib.sha256(text.encode()).hexdigest()[:16]
