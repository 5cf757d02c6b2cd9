"""RefCOCO and RefCOCO+ (Yu et al., ECCV 2016) and RefCOCOg (Mao et al., CVPR 2016): sentences about objects in images."""

import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from mmengine.dataset import BaseDataset
from mmengine.logging import MMLogger
from pycocotools import mask as coco_mask

from mmsoc.registry import DATASETS
from mmsoc.utils.errors import UserError
from mmsoc.utils.files import check_file_name, clean_text, get_field, listed, load_json

from .data_root import check_root
from .transforms.refcoco import segmentation_to_rle


class _Sentence(NamedTuple):
    text: str
    exp_id: str
    image: dict
    annotation: dict


@DATASETS.register_module()
class RefCOCODataset(BaseDataset):
    """Images with sentences, each sentence naming one object; returned as clips of one frame::

        data_root/
          train2014/COCO_train2014_<12 digits>.jpg        data_prefix['img'], the images of COCO
          refcoco/refs(unc).p, refcoco/instances.json     refs_file and ann_file: the original form
          refcoco/instances_refcoco_<split>.json          ann_file alone: the prepared form
          refcoco+/, refcocog/                            the same; refs(umd).p for RefCOCOg

    With ``refs_file`` the original form of https://github.com/lichengunc/refer is read: a pickle of references,
    filtered by ``split``, and COCO's images and annotations. Without it, the prepared form that ReferFormer and SOC
    train on: a JSON file of one split, with a separate image record and annotation record per sentence. Both give the
    same items; sentence ids are those of the file (``sent_id``, or the running number).

    Training: an item is one image and one sentence, in lower case, with single spaces. Testing: an item is one image
    with all its sentences, which may be of several objects, so that the backbone runs once for them; the text is
    unchanged.

    Two kinds of sentences are left out, and counted in the log: those whose annotation is a crowd (``iscrowd``), which
    covers a group rather than a single object (the loaders of MDETR, ReferFormer and SOC drop them as well), and those
    with an empty mask.

    What the pipeline gets: ``video_id`` and the single entry of ``frames`` (the image's name without suffix),
    ``frame_ids`` ([0]), ``img_paths``, ``mask_paths`` (None), ``height`` and ``width`` (of the image, as shape-aware
    samplers need them), ``texts``, ``exp_ids``, ``obj_ids`` (the annotations' ids in COCO) and ``segmentations`` (a
    run-length code per sentence, for `LoadRefCOCOMasks`).

    Args:
        ann_file: see above.
        refs_file: the references; reading the pickle executes no code (`load_plain_pickle`).
        split: 'train', 'val', 'testA', 'testB', or 'test' (RefCOCOg); required with ``refs_file``, not allowed without.
        data_prefix: the folder ``img``.
        expected_sentences: number of sentences in the complete split, including those left out.

    Raises:
        FileNotFoundError: a file, the folder of images, or an image is missing.
        ValueError: a file's content is not as above, an id occurs twice, there is no such split, the number of
            sentences is not ``expected_sentences``, or nothing is left.
    """

    METAINFO: dict = dict(classes=('referred',))

    def __init__(
        self,
        *,
        ann_file: str,
        refs_file: str | None = None,
        split: str | None = None,
        data_root: str = '',
        data_prefix: dict | None = None,
        expected_sentences: int | None = None,
        metainfo: dict | None = None,
        indices: int | Sequence[int] | None = None,
        serialize_data: bool = True,
        pipeline: Sequence[dict | Callable] = (),
        test_mode: bool = False,
        lazy_init: bool = False,
        max_refetch: int = 1000,
    ) -> None:
        data_prefix = dict(img='train2014') if data_prefix is None else data_prefix
        if set(data_prefix) != {'img'}:
            raise UserError(f"data_prefix: expected the key 'img', found {list(data_prefix)}")
        if refs_file is not None and split is None:
            raise UserError(f"split: refs_file {refs_file} holds all splits; expected the name of one, e.g. 'train'")
        if refs_file is None and split is not None:
            raise UserError(
                f'split: {split!r} chooses among the references of refs_file, and there is none; without it, ann_file is of one '
                'split (instances_refcoco_train.json)'
            )
        self.refs_file = None if refs_file is None else os.path.join(data_root, refs_file)
        self.split = split
        self.expected_sentences = expected_sentences
        super().__init__(
            ann_file=ann_file,
            metainfo=metainfo,
            data_root=data_root,
            data_prefix=data_prefix,
            indices=indices,
            serialize_data=serialize_data,
            pipeline=list(pipeline),
            test_mode=test_mode,
            lazy_init=lazy_init,
            max_refetch=max_refetch,
        )

    def load_data_list(self) -> list[dict]:
        check_root(self.data_root, 'train2014 and the folders refcoco, refcoco+ and refcocog')
        where = f'ann_file {self.ann_file}'
        content = load_json(self.ann_file, 'ann_file')
        images, annotations = (_by_id(content, name, where) for name in ('images', 'annotations'))
        if self.refs_file is None:
            sentences = list(self._prepared(images, annotations))
        else:
            sentences = list(self._original(images, annotations))
        if self.expected_sentences is not None and len(sentences) != self.expected_sentences:
            of_split = '' if self.split is None else f' and the split {self.split} of {self.refs_file}'
            raise UserError(
                f'expected_sentences: {self.ann_file}{of_split} should give {self.expected_sentences} sentences, found '
                f'{len(sentences)}; is it the right file, and complete? None switches this check off'
            )
        self._check_images(sentences)
        return self._items(sentences)

    def get_data_info(self, idx: int) -> dict:
        info = super().get_data_info(idx)
        file_name = info.pop('file_name')
        name = os.path.splitext(file_name)[0]
        info.update(
            video_id=name,
            frames=[name],
            frame_ids=[0],
            img_paths=[os.path.join(self.data_prefix['img'], file_name)],
            mask_paths=None,  # the masks are in ann_file
        )
        return info

    def _prepared(self, images: dict[int, dict], annotations: dict[int, dict]) -> Iterator[_Sentence]:
        """The sentences of the prepared form, in file order."""
        where = f'ann_file {self.ann_file}'
        of_image: dict[int, dict] = {}
        for i, annotation in annotations.items():
            image_id = get_field(annotation, 'image_id', int, f'{where}, annotation {i}')
            if image_id not in images:
                raise UserError(f'{where}, annotation {i}: there is no image {image_id}')
            if image_id in of_image:
                raise UserError(
                    f'{where}, image {image_id}: expected one annotation, found {of_image[image_id]["id"]} and {i}; is this the '
                    'instances.json of the original form? That one needs refs_file and split'
                )
            of_image[image_id] = annotation
        for i, image in images.items():
            if i not in of_image:
                raise UserError(f'{where}, image {i}: there is no annotation of it')
            if 'caption' not in image:
                raise UserError(
                    f"{where}, image {i}: the sentence 'caption' is missing; there are {sorted(image)}. The instances.json of the "
                    'original form needs refs_file and split'
                )
            yield _Sentence(self._text(image, 'caption', f'{where}, image {i}'), str(i), image, of_image[i])

    def _original(self, images: dict[int, dict], annotations: dict[int, dict]) -> Iterator[_Sentence]:
        """The sentences of the split in the original form, in file order."""
        assert self.refs_file is not None
        refs = load_plain_pickle(self.refs_file, 'refs_file')
        if not isinstance(refs, list) or not refs:
            raise UserError(f'refs_file {self.refs_file}: expected a list of references, found {str(refs)[:80]!r}')
        ref_ids: set[int] = set()
        sent_ids: set[int] = set()
        splits: set[str] = set()
        for number, ref in enumerate(refs):
            where = f'refs_file {self.refs_file}, reference {number} of the list'
            ref_id = get_field(ref, 'ref_id', int, where)
            where = f'refs_file {self.refs_file}, ref_id {ref_id}'
            if ref_id in ref_ids:
                raise UserError(f'{where}: the id occurs twice')
            ref_ids.add(ref_id)
            splits.add(get_field(ref, 'split', str, where))
            if ref['split'] != self.split:
                continue
            annotation, image = (
                _of_id(records, get_field(ref, key, int, where), f'{where}: {key}', self.ann_file)
                for key, records in (('ann_id', annotations), ('image_id', images))
            )
            if annotation.get('image_id') != image['id']:
                raise UserError(
                    f'{where}: expected an annotation of image {image["id"]}, found ann_id {annotation["id"]}, which '
                    f'{self.ann_file} says is of image {annotation.get("image_id")}'
                )
            for sentence in get_field(ref, 'sentences', list, where):
                sent_id = get_field(sentence, 'sent_id', int, where)
                if sent_id in sent_ids:
                    raise UserError(f'{where}: the sent_id {sent_id} occurs twice')
                sent_ids.add(sent_id)
                text = self._text(sentence, 'sent', f'{where}, sent_id {sent_id}')
                yield _Sentence(text, str(sent_id), image, annotation)
        if self.split not in splits:
            raise UserError(f'split: {self.refs_file} has no split {self.split!r}; it has {sorted(splits)}')

    def _text(self, record: dict, name: str, where: str) -> str:
        text = get_field(record, name, str, where)
        cleaned = clean_text(text, where)
        return text if self.test_mode else cleaned

    def _check_images(self, sentences: Sequence[_Sentence]) -> None:
        folder = self.data_prefix['img']
        if not os.path.isdir(folder):
            raise FileNotFoundError(f"data_prefix['img']: there is no folder {folder}; expected COCO's images of 2014")
        present = set(os.listdir(folder))  # once: there are 80,000
        wanted: dict[str, None] = {}  # in the order of the file
        for _, _, image, _ in sentences:
            where = f'ann_file {self.ann_file}, image {image["id"]}'
            wanted[check_file_name(get_field(image, 'file_name', str, where), f'{where}, file_name')] = None
        missing = [name for name in wanted if name not in present]
        if missing:
            raise FileNotFoundError(
                f"data_prefix['img']: {len(missing)} of {len(wanted)} images of {self.ann_file} are missing in {folder}: "
                f'{listed(missing, 5)}'
            )

    def _items(self, sentences: Sequence[_Sentence]) -> list[dict]:
        crowds, empty = [], []
        masks: dict[int, tuple[dict, bool]] = {}
        items: dict[int | str, dict] = {}
        for number, (text, exp_id, image, annotation) in enumerate(sentences):
            i = annotation['id']
            if annotation.get('iscrowd', 0):
                crowds.append(i)
                continue
            where = f'ann_file {self.ann_file}, image {image["id"]}'
            height, width = (get_field(image, key, int, where) for key in ('height', 'width'))
            if i not in masks:
                where = f'ann_file {self.ann_file}, annotation {i}'
                segmentation = self._segmentation(annotation, where)
                rle = segmentation_to_rle(segmentation, height, width, where)
                masks[i] = rle, not coco_mask.area(rle)
            rle, is_empty = masks[i]
            if is_empty:
                empty.append(i)
                continue
            name = image['file_name']
            item = items.setdefault(
                name if self.test_mode else number,  # training samples are not grouped
                dict(file_name=name, height=height, width=width, texts=[], exp_ids=[], obj_ids=[], segmentations=[]),
            )
            item['texts'].append(text)
            item['exp_ids'].append(exp_id)
            # In the prepared form, `id` counts the sentences, and `original_id` is COCO's.
            item['obj_ids'].append(str(annotation.get('original_id', i)))
            item['segmentations'].append(rle)
        self._log(len(sentences), len(items), crowds, empty)
        if not items:
            raise UserError(f'ann_file: {self.ann_file} gives no sample')
        return list(items.values())

    def _segmentation(self, annotation: dict, where: str) -> Any:
        if 'segmentation' not in annotation:
            raise UserError(
                f"{where}: the key 'segmentation' is missing; there are {sorted(annotation)}. Files of boxes alone, such as "
                "MDETR's finetune_refcoco_train.json, cannot be used, since masks are needed. Take the original form of "
                'https://github.com/lichengunc/refer (refs_file and split), or what '
                'tools/data/convert_refexp_to_coco.py of https://github.com/wjn922/ReferFormer makes of it '
                '(instances_refcoco_train.json)'
            )
        return annotation['segmentation']

    def _log(self, num_sentences: int, num_items: int, crowds: Sequence[int], empty: Sequence[int]) -> None:
        of_split = '' if self.split is None else f', split {self.split}'
        left_out = [
            f'{len(ids)} sentences of {what} (annotations {listed(list(dict.fromkeys(ids)))})'
            for what, ids in (('crowds', crowds), ('empty masks', empty))
            if ids
        ]
        MMLogger.get_current_instance().info(
            f'{self.ann_file}{of_split}: {num_sentences} sentences, {num_items} samples; left out: '
            + (' and '.join(left_out) or 'nothing')
        )


def load_plain_pickle(path: str, key: str) -> Any:
    """Reads a pickle of plain values (lists, dicts, strings, numbers), also of Python 2; nothing in it can run code.

    Byte strings of Python 2 become text as Latin-1.

    Args:
        key: the config key that names the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a pickle, is truncated, or refers to a class or function.
    """
    try:
        with open(path, 'rb') as file:
            return _PlainUnpickler(file, encoding='latin1').load()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise FileNotFoundError(f'{key}: there is no file {path}') from None
    except Exception as error:  # a broken pickle can raise anything
        raise UserError(f'{key}: {path} cannot be read as a pickle: {type(error).__name__}: {error}') from None


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # Lists, dicts, strings and numbers have dedicated opcodes; anything referred to by name could be called.
        raise pickle.UnpicklingError(
            f'it asks for {module}.{name}, but a file of data may hold plain lists, dicts and values only'
        )


def _by_id(content: Any, name: str, where: str) -> dict[int, dict]:
    """The records ``content[name]`` by their ``id``."""
    found: dict[int, dict] = {}
    for number, record in enumerate(get_field(content, name, list, where)):
        i = get_field(record, 'id', int, f'{where}, {name}[{number}]')
        if i in found:
            raise UserError(f'{where}: {name} has the id {i} twice')
        found[i] = record
    return found


def _of_id(records: dict[int, dict], i: int, what: str, ann_file: str) -> dict:
    if i not in records:
        raise UserError(f'{what} {i} is not in {ann_file}')
    return records[i]
