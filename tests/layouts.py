"""One tiny data set, written in every shape of every layout. `NAME_LABELS` says which files are labels."""

import json
from pathlib import Path

from labelled import CATEGORIES, PICTURES, draw

NAMES = CATEGORIES[1:]
# A shape writes one split and returns its files of labels.
SHAPES = {}


def shape(function):
    SHAPES[function.__name__] = function
    return function


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def numbers(box):
    return [f"{value:g}" for value in box]


def voc_xml(picture):
    objects = "".join(
        f"<object><name>{CATEGORIES[label]}</name><bndbox>"
        + "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), numbers(box), strict=True))
        + "</bndbox></object>\n"
        for label, box in picture.things
    )
    height, width = picture.size
    return f"<annotation><size><width>{width}</width><height>{height}</height></size>\n{objects}</annotation>"


# A line of YOLO: the corners of a box as an outline.
OUTLINE = "{label} {l} {t} {r} {t} {r} {b} {l} {b}"


def yolo_text(picture, line="{label} {x} {y} {w} {h}"):
    height, width = picture.size
    lines = [
        line.format(label=label - 1, x=(x1 + x2) / 2 / width, y=(y1 + y2) / 2 / height, w=(x2 - x1) / width,
                    h=(y2 - y1) / height, l=x1 / width, t=y1 / height, r=x2 / width, b=y2 / height) + "\n"
        for label, (x1, y1, x2, y2) in picture.things
    ]  # fmt: skip
    return "".join(lines)


def each(images, labels, text, ending):
    def make(root, split, pictures):
        files = []
        for picture in pictures:
            draw(picture, root / images.format(split) / f"{picture.name}.png")
            files.append(write(root / labels.format(split) / f"{picture.name}{ending}", text(picture)))
        return files

    return make


for name, images, labels in (
    ("voc_flat", "{}", "{}"),
    ("voc_roboflow", "data/{}", "data/{}"),
    ("voc_lower_case", "images/{}", "annotations/{}"),
    ("voc_kaggle", "{}/images", "{}/annotations"),
    ("voc_xmls", "{}/img", "{}/xmls"),
    ("voc_images_in_split", "images/{}", "images/{}"),
):
    SHAPES[name] = each(images, labels, voc_xml, ".xml")


@shape
def voc_lists(root, split, pictures):
    write(root / f"ImageSets/Main/{split}.txt", "".join(f'"{picture.name}"\n' for picture in pictures))
    return each("JPEGImages", "Annotations", voc_xml, ".xml")(root, split, pictures)


for name, images, labels, text in (
    ("yolo_folders", "images/{}", "labels/{}", yolo_text),
    ("yolo_roboflow", "{}/images", "{}/labels", yolo_text),
    ("yolo_beside", "{}", "{}", yolo_text),
    ("yolo_outlines", "images/{}", "labels/{}", lambda picture: yolo_text(picture, OUTLINE)),
):

    def make_yolo(root, split, pictures, images=images, labels=labels, text=text):
        write(root / "classes.txt", "\n".join([*NAMES, ""]))
        return each(images, labels, text, ".txt")(root, split, pictures)

    SHAPES[name] = make_yolo


def yaml_shape(name, head, entry):
    def make(root, split, pictures):
        root.mkdir(parents=True, exist_ok=True)
        file = root / "data.yaml"
        old = file.read_text() if file.exists() else f"names: [{', '.join(NAMES)}]\n{head}"
        file.write_text(f"{old}{split}: {entry.format(split)}\n")
        return each("{}/images", "{}/labels", yolo_text, ".txt")(root, split, pictures)

    SHAPES[name] = make


yaml_shape("yolo_yaml", "", "{}/images")
yaml_shape("yolo_yaml_roboflow", "nc: 2\n", "../{}/images")
yaml_shape("yolo_yaml_of_another_machine", "path: /content/datasets/pets\n", "{}/images")
yaml_shape("yolo_yaml_of_windows", "", "'C:\\Users\\x\\pets\\{}\\images'")
yaml_shape("yolo_yaml_lists", "", "[{}/images]")


@shape
def yolo_darknet(root, split, pictures):
    files = each("obj_{}_data", "obj_{}_data", yolo_text, ".txt")(root, split, pictures)
    write(root / f"{split}.txt", "".join(f"data/obj_{split}_data/{picture.name}.png\n" for picture in pictures))
    write(root / "obj.names", "\n".join(NAMES))
    key = "valid" if split == "val" else split
    with (root / "obj.data").open("a") as file:
        file.write(f"classes = 2\nnames = data/obj.names\n{key} = data/{split}.txt\n")
    return files


def coco_shape(name, file, images, file_name="{name}.png", outlines=False, nulls=False):
    def make(root, split, pictures):
        annotations = []
        for i, picture in enumerate(pictures):
            draw(picture, root / images.format(split) / f"{picture.name}.png")
            for label, (x1, y1, x2, y2) in picture.things:
                box = {"bbox": [x1, y1, x2 - x1, y2 - y1]}
                if outlines:
                    box = {"segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]]}
                extra = {"area": None, "iscrowd": None, "id": None} if nulls else {"id": len(annotations)}
                annotations.append({"image_id": str(i), "category_id": label, **extra, **box})
        entries = [
            {"id": i, "file_name": file_name.format(name=picture.name), "height": picture.size[0],
             "width": picture.size[1]}
            for i, picture in enumerate(pictures)
        ]  # fmt: skip
        categories = [{"id": i, "name": name, "supercategory": "pets"} for i, name in enumerate(NAMES, start=1)]
        categories.append({"id": 0, "name": "pets", "supercategory": "none"})
        content = {"images": entries, "annotations": annotations, "categories": categories}
        return [write(root / file.format(split), json.dumps(content, indent=1))]

    SHAPES[name] = make


coco_shape("coco_official", "annotations/instances_{}2017.json", "{}2017")
coco_shape("coco_keypoints", "annotations/person_keypoints_{}2017.json", "{}2017")
coco_shape("coco_images", "annotations/{}.json", "images")
coco_shape("coco_roboflow", "{}/_annotations.coco.json", "{}")
coco_shape("coco_fiftyone", "{}/labels.json", "{}/data")
coco_shape("coco_windows", "{}.json", "images", "C:\\data\\images\\{name}.png")
coco_shape("coco_label_studio", "{}/result.json", "{}/images", "/data/local-files/?d=x/images/{name}.png")
coco_shape("coco_outlines", "{}_coco.json", "images", outlines=True)
coco_shape("coco_nulls", "{}.json", ".", nulls=True)


def labelme_json(picture):
    shapes = [
        {"label": CATEGORIES[label], "points": [[x1, y1], [x2, y2]], "shape_type": "rectangle"}
        for label, (x1, y1, x2, y2) in picture.things
    ]
    return json.dumps({"version": "5", "shapes": shapes, "imagePath": f"..\\{picture.name}.png", "imageData": None})


SHAPES["labelme"] = each("{}", "{}", labelme_json, ".json")
SHAPES["labelme_folders"] = each("images/{}", "annotations/{}", labelme_json, ".json")


def cvat_images(root, split, pictures):
    for i, picture in enumerate(pictures):
        draw(picture, root / "images" / split / f"{picture.name}.png")
        boxes = "".join(
            '<box label="{}" xtl="{}" ytl="{}" xbr="{}" ybr="{}"></box>'.format(CATEGORIES[label], *box)
            for label, box in picture.things
        )
        height, width = picture.size
        yield (
            f'<image id="{i}" name="{split}/{picture.name}.png" subset="{split}" width="{width}" height="{height}">'
            f"{boxes}</image>\n"
        )


def cvat_xml(images):
    labels = "".join(f"<label><name>{name}</name></label>" for name in NAMES)
    meta = f"<version>1.1</version><meta><task><labels>{labels}</labels></task></meta>"
    return f"<annotations>{meta}{''.join(images)}</annotations>"


@shape
def cvat(root, split, pictures):
    return [write(root / f"{split}.xml", cvat_xml(cvat_images(root, split, pictures)))]


@shape
def cvat_subsets(root, split, pictures):
    file = root / "annotations.xml"
    old = file.read_text() if file.exists() else cvat_xml(())
    return [write(file, old.replace("</annotations>", f"{''.join(cvat_images(root, split, pictures))}</annotations>"))]


def table_shape(name, file, images, header, row):
    def make(root, split, pictures):
        lines = [header] if header else []
        for picture in pictures:
            draw(picture, root / images.format(split) / f"{picture.name}.png")
            height, width = picture.size
            for label, box in picture.things:
                x1, y1, x2, y2 = box
                lines.append(row.format(file=f"{picture.name}.png", stem=picture.name, width=width, height=height,
                                        name=CATEGORIES[label], x1=x1, y1=y1, x2=x2, y2=y2, l=x1 / width,
                                        r=x2 / width, t=y1 / height, b=y2 / height))  # fmt: skip
            if not picture.things:
                lines += [f"{picture.name}.png,,,,,"] if not header else []
        return [write(root / file.format(split), "\n".join([*lines, ""]))]

    SHAPES[name] = make


table_shape("table_of_tutorials", "{}_labels.csv", "images/{}", "filename,width,height,class,xmin,ymin,xmax,ymax",
            "{file},{width},{height},{name},{x1},{y1},{x2},{y2}")  # fmt: skip
table_shape("table_of_roboflow", "{}/_annotations.csv", "{}", "filename,width,height,class,xmin,ymin,xmax,ymax",
            "{file},{width},{height},{name},{x1},{y1},{x2},{y2}")  # fmt: skip
table_shape("table_of_retinanet", "{}.csv", ".", "", "{file},{x1},{y1},{x2},{y2},{name}")
table_shape("table_of_open_images", "{}-annotations-bbox.csv", "{}",
            "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsGroupOf",
            "{stem},xclick,{name},1,{l},{r},{t},{b},0")  # fmt: skip


def kitti_text(picture):
    lines = [f"{CATEGORIES[label]} 0.00 0 -1.57 {' '.join(numbers(box))} 1 1 1 1 1 1 0\n"
             for label, box in picture.things]  # fmt: skip
    return "".join([*lines, "DontCare -1 -1 -10 1 1 2 2 -1 -1 -1 -1000 -1000 -1000 -10\n"])


SHAPES["kitti"] = each("{}/image_2", "{}/label_2", kitti_text, ".txt")
SHAPES["kitti_of_fiftyone"] = each("{}/data", "{}/labels", kitti_text, ".txt")


@shape
def widerface(root, split, pictures):
    lines = []
    for picture in pictures:
        draw(picture, root / f"WIDER_{split}/images/0--Parade/{picture.name}.png")
        lines += [f"0--Parade/{picture.name}.png", str(len(picture.things))]
        rows = [(x1, y1, x2 - x1, y2 - y1) for _, (x1, y1, x2, y2) in picture.things] or [(0, 0, 0, 0)]
        lines += [" ".join([*numbers(row), "0 0 0 0 0 0 "]) for row in rows]
    return [write(root / f"wider_face_split/wider_face_{split}_bbx_gt.txt", "\n".join([*lines, ""]))]


VAL = (PICTURES[0]._replace(name="fourth"),)


def make(name: str, root: Path) -> list[Path]:
    """Writes both splits; returns the files of labels."""
    return [*SHAPES[name](root, "train", PICTURES), *SHAPES[name](root, "val", VAL)]
