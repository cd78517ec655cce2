"""The datasets of the catalogue: to add one is to add an entry here.

Its address must have been seen in public, never guessed: where the address of
the file itself is not known, `url` is None and `manual` says where a person
finds it. No address was fetched when the table was written. A checksum in it
agrees with what the publisher or several independent users report; a note that
starts with 'unverified' marks what rests on less.
"""

from __future__ import annotations

from pertjax.data import catalog_entry
from pertjax.data.catalog_entry import Entry

_NORMAN = 'Norman et al. 2019, Science 365:786, doi:10.1126/science.aax4438'
_ADAMSON = 'Adamson et al. 2016, Cell 167:1867, doi:10.1016/j.cell.2016.11.048'
_DIXIT = 'Dixit et al. 2016, Cell 167:1853, doi:10.1016/j.cell.2016.11.038'
_REPLOGLE = (
  'Replogle et al. 2022, Cell 185:2559, doi:10.1016/j.cell.2022.05.013'
)
_KANG = 'Kang et al. 2018, Nat Biotechnol 36:89, doi:10.1038/nbt.4042'
_SRIVATSAN = (
  'Srivatsan et al. 2020, Science 367:45, doi:10.1126/science.aax6234'
)
_FRANGIEH = (
  'Frangieh et al. 2021, Nat Genet 53:332, doi:10.1038/s41588-021-00779-1'
)
_MCFALINE = (
  'McFaline-Figueroa et al. 2024, Cell Genom 4:100487, '
  'doi:10.1016/j.xgen.2023.100487'
)
_COUNTS = "counts are in layers['counts']"
_UNKNOWN_HASH = 'unverified: no published checksum found'
# Files of a public benchmark of prediction for unseen cell types.
_OOD_FOLDER = (
  'https://drive.google.com/drive/folders/1zcTdTAmcDprXYFJ8EGLado6AP0-H9fX-'
)
_ENTRIES = (
  catalog_entry.gears(
    'norman2019_gears',
    6154020,
    'Perturb-seq, CRISPRa of 105 genes and 131 pairs in K562; 91,205 cells',
    _NORMAN,
    size=168_758_985,
    sha256='c1938353f6f41829c9137f073ecb843ce4d4114528b001b48312b019f739d877',
    md5='cdc41d6050e619c37fd9dd44d440e2b4',
    notes=(
      'cell_type says A549; the cells are K562',
      '47 genes occur both as A+ctrl and as ctrl+A',
      _COUNTS,
      'unpacked 2.2 GB',
    ),
  ),
  catalog_entry.gears(
    'adamson2016_gears',
    6154417,
    'Perturb-seq, CRISPRi of 86 genes in K562; 68,603 cells',
    _ADAMSON,
    size=140_744_228,
    md5='0bde631bae60ee8c105991ff0e0d4a20',
    notes=('cell_type says K562(?)',),
  ),
  catalog_entry.gears(
    'dixit2016_gears',
    6154416,
    'Perturb-seq, CRISPR knock-out of 19 genes; 44,735 cells',
    _DIXIT,
    notes=(_UNKNOWN_HASH,),
  ),
  catalog_entry.gears(
    'replogle2022_k562_gears',
    7458695,
    'Perturb-seq, CRISPRi of 1,092 essential genes in K562; 162,751 cells',
    _REPLOGLE,
    md5='84eed779531de88f83d3eb16a773a261',
    notes=(
      'only perturbations with strong effects; not the whole screen',
      'one gene_name occurs twice',
      'unverified: checksum seen in one place',
    ),
  ),
  catalog_entry.gears(
    'replogle2022_rpe1_gears',
    7458694,
    'Perturb-seq, CRISPRi of 1,543 essential genes in RPE1; 162,733 cells',
    _REPLOGLE,
    size=665_914_266,
    md5='169370a8da6093470f122172ab30f7c5',
    notes=('only perturbations with strong effects; not the whole screen',),
  ),
  catalog_entry.scperturb(
    'norman2019_scperturb',
    'NormanWeissman2019_filtered.h5ad',
    'Perturb-seq, CRISPRa of 105 genes and 131 pairs in K562; 111,445 cells',
    _NORMAN,
    size=698_680_199,
    sha256='efde6f5301fe256725dce1d980f37bd96a13481a9a16135515897368e631affc',
    md5='c870e6967d91c017d9da827bab183cd6',
  ),
  catalog_entry.scperturb(
    'replogle2022_k562_scperturb',
    'ReplogleWeissman2022_K562_essential.h5ad',
    'Perturb-seq, CRISPRi of essential genes in K562; 310,385 cells',
    _REPLOGLE,
    size=1_546_729_675,
    sha256='412fd0df8c4ccea9f4db91cd88033c49200838b29d40945e48574be588b48789',
    md5='d8cba17576d1a8afc0f7d71b79cad0f7',
  ),
  catalog_entry.scperturb(
    'replogle2022_rpe1_scperturb',
    'ReplogleWeissman2022_rpe1.h5ad',
    'Perturb-seq, CRISPRi of essential genes in RPE1; 247,914 cells',
    _REPLOGLE,
    size=1_236_886_900,
    sha256='12d6a0cf9378c4f09411e27f0ce07b59f1d97731bd576d6fadf112f6f088d1a4',
    md5='cc7f1ec50aeb3a3e1b4a6cfa713d80fa',
  ),
  catalog_entry.scperturb(
    'replogle2022_k562_gwps_scperturb',
    'ReplogleWeissman2022_K562_gwps.h5ad',
    'Perturb-seq, CRISPRi of all expressed genes in K562',
    _REPLOGLE,
    size=8_810_000_000,
    md5='13db594f8f1d2ccb88fec44a13e414dc',
    notes=('about two million cells: larger than most memories',),
  ),
  catalog_entry.scperturb(
    'srivatsan2020_scperturb',
    'SrivatsanTrapnell2020_sciplex3.h5ad',
    'sci-Plex 3, 188 compounds at 4 doses in A549, K562, MCF7; 799,317 cells',
    _SRIVATSAN,
    separator=None,
    dose='dose_value',
    size=2_526_631_614,
    md5='c9e70629505d98c7ca1a837f62b14e89',
    notes=(
      '36,522 cells have no treatment: leave them out',
      'names of compounds hold + and blanks',
      'var has Ensembl ids in ensembl_id',
      'earlier releases (md5 d1f51b9f...) have gene labels shifted by one row',
    ),
  ),
  catalog_entry.scperturb(
    'frangieh2021_scperturb',
    'FrangiehIzar2021_RNA.h5ad',
    'Perturb-CITE-seq, knock-out of 248 genes in melanoma cells, alone, with '
    'interferon-gamma or with T cells; 218,331 cells',
    _FRANGIEH,
    record=10044268,
    covariates=('perturbation_2',),
    size=1_458_928_348,
    md5='dc438f53c476a3dd562898654d48ed15',
    notes=(
      'unverified: perturbation is said to name only the first of several '
      'targeted genes and to call cells with mixed guides controls',
    ),
  ),
  Entry(
    name='norman2019_cpa',
    title='Perturb-seq, CRISPRa in K562, as prepared for CPA; 108,497 cells '
    'by 5,000 genes. The file of the discrepancy VAE and of SENA',
    reference=f'{_NORMAN}; CPA: Lotfollahi et al. 2023',
    licence='not stated for the data',
    url='https://dl.fbaipublicfiles.com/dlp/cpa_binaries.tar',
    filename='cpa_binaries.tar',
    member='Norman2019_raw.h5ad',
    preset='cpa',
    key='guide_ids',
    control='',
    gene_names='gene_symbols',
    scale='log1p',
    notes=(
      'named raw, but X is normalised, log1p and cut to variable genes',
      'var_names are Ensembl ids',
      'the archive is large: it holds other datasets and trained models',
      _UNKNOWN_HASH,
    ),
  ),
  Entry(
    name='norman2019_sena',
    title='The CPA file of Norman 2019, reduced by the authors of SENA',
    reference=f'{_NORMAN}; SENA: arXiv:2506.12439',
    licence='MIT (repository)',
    url='https://raw.githubusercontent.com/ML4BM-Lab/SENA/refs/heads/master/'
    'data/Norman2019_reduced.zip',
    filename='Norman2019_reduced.zip',
    member='Norman2019_reduced.h5ad',
    preset='cpa',
    key='guide_ids',
    control='',
    scale='log1p',
    notes=(
      'how it was reduced is not documented',
      'unverified: address seen once, scale assumed to be that of the CPA file',
      _UNKNOWN_HASH,
    ),
  ),
  Entry(
    name='kang2018',
    title='PBMC of 8 lupus patients with and without interferon-beta; 24,673 '
    'cells by 15,706 genes',
    reference=f'{_KANG}; prepared for pertpy',
    licence='not stated by the host',
    url='https://exampledata.scverse.org/pertpy/kang_2018.h5ad',
    manual='the same file is figshare file 34464122',
    filename='kang_2018.h5ad',
    preset=None,
    key='label',
    separator=None,
    control='ctrl',
    covariates=('cell_type',),
    size=38_356_412,
    sha256='e6a5adac64dcdeb36eaba27db49b63e0c64bb0ed4a64c6705971506b41c39830',
    notes=('donors are in replicate',),
  ),
  Entry(
    name='kang2018_scgen',
    title='PBMC with and without interferon-beta, as prepared for scGen; '
    '18,868 cells by 6,998 genes',
    reference=f'{_KANG}; scGen: Lotfollahi et al. 2019',
    licence='not stated by the host',
    manual=f'pbmc/pbmc.h5ad in {_OOD_FOLDER}',
    filename='pbmc.h5ad',
    preset=None,
    key='condition',
    separator=None,
    control='control',
    covariates=('cell_type',),
    scale='log1p',
    notes=('train and validation file of scGen together', _UNKNOWN_HASH),
  ),
  Entry(
    name='hagai2018_scgen',
    title='Phagocytes of 4 species, 6 h of LPS, as prepared for scGen; 62,114 '
    'cells by 6,619 genes',
    reference='Hagai et al. 2018, Nature 563:197, '
    'doi:10.1038/s41586-018-0657-2; scGen: Lotfollahi et al. 2019',
    licence='not stated by the host',
    manual=f'cross_species/cross_species.h5ad in {_OOD_FOLDER}',
    filename='cross_species.h5ad',
    preset=None,
    key='condition',
    separator=None,
    control='unst',
    covariates=('species',),
    scale='log1p',
    notes=(_UNKNOWN_HASH,),
  ),
  Entry(
    name='nault2021',
    title='Mouse liver nuclei, TCDD at 8 doses, 11 cell types',
    reference='Nault et al. 2022, Nucleic Acids Res 50:e48, '
    'doi:10.1093/nar/gkac019 (GEO GSE184506); scVIDR: '
    'doi:10.1101/2022.10.05.510890',
    licence='not stated by the host',
    manual='data.zip of https://github.com/BhattacharyaLab/scVIDR (section '
    f'Data), or scvidr/nault2021_multiDose.h5ad in {_OOD_FOLDER}',
    filename='nault2021_multiDose.h5ad',
    preset=None,
    key='Dose',
    control='0.0',
    separator=None,
    covariates=('celltype',),
    notes=(
      'one compound: the dose (ug/kg) is the condition, 0 the control',
      'Dose holds numbers: turn it into text first',
      _UNKNOWN_HASH,
    ),
  ),
  Entry(
    name='wessels2023_sena',
    title='CaRPool-seq, Cas13 knock-down of CD46, CD55, CD71 and pairs in '
    'HEK293FT',
    reference='Wessels et al. 2023, Nat Methods 20:86, '
    'doi:10.1038/s41592-022-01705-x; SENA: arXiv:2506.12439',
    licence='MIT (repository)',
    manual='data/wessel_dataset/HEK293FT_carpool_processed.h5ad of '
    'https://github.com/ML4BM-Lab/SENA, or raw counts from GEO GSE213957',
    filename='HEK293FT_carpool_processed.h5ad',
    preset='scperturb',
    key='TargetGenes',
    control='NT',
    scale=None,
    notes=(
      'var_names are Ensembl ids',
      'unverified: whether the repository still holds the file',
    ),
  ),
  catalog_entry.perturbench(
    'norman2019_perturbench',
    'norman19_processed.h5ad.gz',
    'Perturb-seq, CRISPRa of genes and pairs in K562; 91,168 cells',
    _NORMAN,
    notes=(_COUNTS, _UNKNOWN_HASH),
  ),
  catalog_entry.perturbench(
    'norman2019_perturbench_cpa',
    'norman19_cpa_hvg_normalized_curated.h5ad',
    'The CPA file of Norman 2019 in PerturBench names',
    _NORMAN,
    notes=(_UNKNOWN_HASH,),
  ),
  catalog_entry.perturbench(
    'srivatsan2020_perturbench',
    'srivatsan20_highest_dose_processed.h5ad.gz',
    'sci-Plex 3 at 10 uM, 188 compounds in 3 lines; 178,213 cells',
    _SRIVATSAN,
    separator=None,
    notes=('made by the pipeline of chemCPA', _COUNTS, _UNKNOWN_HASH),
  ),
  catalog_entry.perturbench(
    'frangieh2021_perturbench',
    'frangieh21_processed.h5ad.gz',
    'Perturb-CITE-seq, knock-out of 248 genes in melanoma cells, 3 treatments; '
    '218,331 cells',
    _FRANGIEH,
    covariates=('treatment',),
    notes=(_COUNTS, _UNKNOWN_HASH),
  ),
  catalog_entry.perturbench(
    'mcfaline2023_perturbench',
    'mcfaline23_gxe_processed.h5ad.gz',
    'sci-Plex-GxE, CRISPRi of kinases in 3 glioblastoma lines, 5 treatments; '
    '878,229 cells by 15,009 genes',
    _MCFALINE,
    covariates=('cell_type', 'treatment'),
    size=5_549_946_093,
    sha256='34db710ad850b5b5fd478d123f1c10ae3d5aaa013fce6061be8216ea27aed215',
    notes=(
      'its genes hold about 72% of the counts; the depth is obs ncounts',
      'raw data: GEO GSE225775',
      _COUNTS,
    ),
  ),
  catalog_entry.perturbench(
    'jiang2024_perturbench',
    'jiang24_processed.h5ad.gz',
    'Perturb-seq, knock-out in 6 lines, 5 cytokines; 1,628,476 cells',
    'Jiang et al. 2025, Nat Cell Biol, doi:10.1038/s41556-025-01622-z',
    covariates=('cell_type', 'treatment'),
    size=15_232_554_616,
    sha256='dd890a8019b8a615010963b32e6e28ce42fd0b94a749602bc93efb2fa8af56cc',
    notes=(_COUNTS,),
  ),
  catalog_entry.perturbench(
    'op3_perturbench',
    'op3_processed.h5ad.gz',
    'Open Problems perturbation prediction, 144 compounds in PBMC; 298,087 '
    'cells',
    'Szalata et al. 2024, NeurIPS, openreview WTI4RJYSVm (GEO GSE279945)',
    preset=None,
    key='SMILES',
    control='C[S+](C)[O-]',
    separator=None,
    notes=(
      'the key holds SMILES, with + in them; the control is DMSO',
      'unverified: scale, taken from the rule of PerturBench',
      _UNKNOWN_HASH,
    ),
  ),
)
TABLE = {entry.name: entry for entry in _ENTRIES}
if len(TABLE) != len(_ENTRIES):
  raise ValueError('two datasets of the catalogue have the same name')
