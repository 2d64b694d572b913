"""What only a GPU can show: `pytest tests/test_gpu.py` on a machine that has one."""

import json
import signal
import time
from contextlib import contextmanager

import pytest
import torch
from compare import assert_same_detections
from launch import finish, free_port, start
from train_tiny import train

import ssd_zoo
from ssd_zoo.cli.main import main
from ssd_zoo.data import read_image
from ssd_zoo.deploy import compare_detections, optimize
from ssd_zoo.detector.loss import detector_losses
from ssd_zoo.detector.postprocess.dispatch import postprocess_detections, score_boxes
from ssd_zoo.detector.postprocess.fixed import try_few_candidates
from ssd_zoo.detector.postprocess.thresholds import Thresholds
from ssd_zoo.video import split_frames

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="NO GPU, or it is hidden: run tests/test_gpu.py alone"),
    # Of compilers, and that waiting may be overlooked.
    pytest.mark.filterwarnings("default"),
]

SIZES = [(240, 320), (100, 120), (330, 250)]


@pytest.fixture(autouse=True)
def _exact_products(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def build(name, **kwargs):
    torch.manual_seed(0)
    return ssd_zoo.get_model(name, weights=None, weights_backbone=None, num_classes=5, **kwargs).eval()


def detector():
    return ssd_zoo.ssdlite300_mobilenet_v2(weights="COCO_TF_V1").eval()


def images_of(sizes=SIZES):
    return [torch.rand(3, *size, generator=torch.Generator().manual_seed(i)) for i, size in enumerate(sizes)]


def targets_of(count):
    corners = torch.rand(count, 3, 2, generator=torch.Generator().manual_seed(0)) * 40
    return [{"boxes": torch.cat([some, some + 50], dim=1), "labels": torch.tensor([1, 2, 4])} for some in corners]


def on_gpu(value):
    if isinstance(value, (list, tuple)):
        return [on_gpu(part) for part in value]
    return {key: part.cuda() for key, part in value.items()} if isinstance(value, dict) else value.cuda()


def on_cpu(found):
    return [{key: value.cpu() for key, value in image.items()} for image in found]


@pytest.fixture(scope="module")
def photos(photo):
    """Photographs of one person, at three sizes."""
    image = read_image(photo)
    return [image, image[:, 20:, :470], torch.nn.functional.interpolate(image[None].float(), (400, 300))[0] / 255]


@pytest.mark.parametrize(
    "name",
    ["ssd300_vgg16d", "ssdlite320_mobilenet_v3_large", "ssd300_resnet18", "ssdlite320_mobilenet_v2_fpn"],
)
def test_raw_output_losses_and_gradients_are_the_cpus(name):
    model = build(name)
    images, targets = images_of(), targets_of(3)
    results = []
    for move in (lambda value: value, on_gpu):
        if move is on_gpu:
            model.cuda()
        raw = model.forward_raw(model.prepare(move(images)))
        losses = detector_losses(model, raw, *model.prepare_targets(move(targets), SIZES))
        model.zero_grad()
        # Not the losses: which negatives are hardest, rounding decides where all are alike.
        sum((value * value.detach().cos()).sum() for value in raw.values()).backward()
        gradients = {name: parameter.grad.cpu().clone() for name, parameter in model.named_parameters()}
        results.append(({key: value.detach().cpu() for key, value in {**raw, **losses}.items()}, gradients))
    (expected, gradients), (found, found_gradients) = results
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-3 * value.abs().max().item())
    largest = max(gradient.abs().max() for gradient in gradients.values())
    for key, gradient in gradients.items():
        torch.testing.assert_close(found_gradients[key], gradient, rtol=1e-2, atol=1e-3 * largest.item())


@torch.no_grad()
def test_detections_are_the_cpus(photos):
    model = detector()
    expected = model(photos)
    assert sum(len(found["scores"]) for found in expected) > 20
    found = model.cuda()(on_gpu(photos))
    assert {value.device.type for value in found[0].values()} == {"cuda"}
    assert_same_detections(on_cpu(found), expected)


@pytest.mark.parametrize(("classes", "spread"), [(91, 0.1), (21, 4), (2, 1)])
@torch.no_grad()
def test_postprocessing_is_the_cpus(classes, spread):
    default_boxes = build("ssd300_vgg16d").default_boxes
    generator = torch.Generator().manual_seed(0)
    # In float64, for equal scores have no order.
    raw = {
        "cls_logits": torch.randn(3, len(default_boxes), classes, generator=generator).double() * spread,
        "bbox_regression": torch.randn(3, len(default_boxes), 4, generator=generator).double(),
    }
    results = []
    for move in (lambda value: value, on_gpu):
        scored, boxes, scales = score_boxes(move(raw), "softmax"), move(default_boxes), move(torch.ones(3, 4))
        kinds = [scored]
        if move is on_gpu:
            kinds.append(try_few_candidates(scored, boxes, (300, 300), Thresholds()))
            assert "exact" in kinds[1]
        for found in kinds:
            results.append(on_cpu(postprocess_detections(found, boxes, (300, 300), Thresholds(), scales)))
    expected, *others = results
    assert sum(len(found["scores"]) for found in expected) == 600
    for found in others:
        assert_same_detections(found, expected)


@contextmanager
def nothing_waits():
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
        # What waits is an error.
        with pytest.raises(RuntimeError, match="synchronizing"):
            torch.ones(1, device="cuda").item()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_training_waits_for_nothing():
    for name in ("ssdlite320_mobilenet_v3_large", "ssd300_vgg16d"):
        model = build(name).cuda().train()
        images, targets = on_gpu(images_of()), on_gpu(targets_of(3))
        sum(model(images, targets).values()).backward()
        with nothing_waits():
            sum(model(images, targets).values()).backward()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@torch.no_grad()
def test_detecting_waits_for_nothing_before_nms():
    model = build("ssdlite320_mobilenet_v3_large").cuda()
    images = on_gpu(images_of())
    model(images)
    with nothing_waits():
        scored = model._forward_scores(model.prepare(images))
        fixed = model.forward_fixed(model.prepare(images))
    assert len(scored["best"]) == len(fixed["count"]) == len(images)


def test_errors_come_later():
    model = build("ssdlite320_mobilenet_v3_large").cuda().train()
    images = on_gpu(images_of(SIZES[:2]))
    wrong = on_gpu(targets_of(2))
    for target in wrong:
        target["labels"][:] = 7
    assert model(images, wrong)["bbox_regression"] == 0
    torch.cuda.synchronize()
    with pytest.raises(ValueError, match="is 7; with 5 classes"):
        model(images, wrong)
    model.eval()
    with pytest.raises(ValueError, match="holds NaN"):
        model([torch.full((3, 40, 60), torch.nan).cuda()])
    next(model.parameters()).data.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"output for images\[0\] is NaN"):
        model(images)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_mixed_precision_detects_the_same(photos, dtype):
    class Mixed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = detector()

        def forward(self, images):
            with torch.autocast("cuda", dtype=dtype):
                return self.model(images)

    change = compare_detections(detector(), Mixed().eval().cuda(), photos, score_thresh=0.3)
    assert change.matched >= 3
    assert (change.lost, change.gained) == (0, 0)
    assert 0 < change.score_change < 0.05
    assert change.box_shift < 5


@pytest.mark.parametrize(
    ("compile", "dtype"),
    [
        (False, None),
        (False, torch.bfloat16),
        (True, None),
        ("reduce-overhead", None),
        ("reduce-overhead", torch.float16),
    ],
)
@torch.no_grad()
def test_optimized(photos, compile, dtype):
    torch._dynamo.reset()
    model = detector().cuda()
    images = on_gpu(photos)
    fast = optimize(model, compile=compile, dtype=dtype, images=images)
    first = fast(images[:1])
    kept = [{key: value.clone() for key, value in first[0].items()}]
    for some in (images[:1], images[1:2], images, images[2:], images[:2], images[:1]):
        change = compare_detections(model, fast, some, score_thresh=0.3)
        assert change.matched >= len(some)
        assert (change.lost, change.gained) == (0, 0)
        if dtype is None:
            assert change.score_change < 1e-4
            assert change.box_shift < 0.05
        else:
            assert change.score_change < 0.05
            assert change.box_shift < 5
    # Thresholds may change even now, and more often than compilers like.
    for most in range(1, 11):
        fast.detections_per_img = most
        torch.testing.assert_close(fast(images[:1])[0]["scores"], kept[0]["scores"][:most], rtol=0, atol=1e-5)
    # Graphs write over what they gave before; what the model gave stays.
    for before, now in zip(kept, first, strict=True):
        assert all(torch.equal(value, now[key]) for key, value in before.items())


@torch.no_grad()
def test_compiled_to_graphs(photos):
    torch._dynamo.reset()
    model, images = detector().cuda(), on_gpu(photos)
    fast = torch.compile(model, mode="reduce-overhead")
    for _ in range(4):
        for some in (images, images[:1], images[1:]):
            assert_same_detections(on_cpu(fast(some)), on_cpu(model(some)))


def test_compiled_training():
    torch._dynamo.reset()
    model = build("ssdlite320_mobilenet_v3_large", size=160).cuda().train()
    compiled = torch.compile(model)
    for sizes in (SIZES[:2], SIZES, SIZES[1:]):
        images, targets = on_gpu(images_of(sizes)), on_gpu(targets_of(len(sizes)))
        with torch.autocast("cuda", dtype=torch.float16):
            losses = compiled(images, targets)
            expected = model(images, targets)
        sum(losses.values()).backward()
        for key, value in expected.items():
            torch.testing.assert_close(losses[key], value, rtol=0.02, atol=0)
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("name", ["ssdlite300_mobilenet_v2_3d", "ssd300_vgg16d_3d"])
@torch.no_grad()
def test_clips_and_streams(name):
    model = build(name, score_thresh=0.1)
    clips = [torch.rand(4, 3, 90, 120, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    lengths = [4, 4]
    expected = model.forward_raw(model.prepare(clips), lengths)
    model.cuda()
    clips = on_gpu(clips)
    for key, value in model.forward_raw(model.prepare(clips), lengths).items():
        torch.testing.assert_close(value.cpu(), expected[key], rtol=1e-3, atol=1e-3 * expected[key].abs().max().item())
    whole = [split_frames(found, 4) for found in model(clips)]
    state = None
    for t in range(4):
        found, state = model.step([clip[t] for clip in clips], state)
        found = [{key: value for key, value in of_stream.items() if key != "frame_index"} for of_stream in found]
        assert_same_detections(on_cpu(found), on_cpu([frames[t] for frames in whole]))


def test_fp16_trains_nearly_the_same_and_goes_on_after_a_stop(tmp_path):
    options = {"device": None, "epochs": 8, "batch_norm": "frozen"}
    kinds = {
        kind: train(tmp_path / kind, tmp_path / "data", mixed_precision=kind, **options) for kind in ("no", "fp16")
    }
    plain, half = (kinds[kind].history for kind in ("no", "fp16"))
    assert next(kinds["fp16"].model.parameters()).device.type == "cuda"
    # The first steps are left out, until the scale of the gradients is one that they fit in.
    assert half[-1]["loss"] == pytest.approx(plain[-1]["loss"], rel=0.2)
    assert half[-1]["loss"] < 0.8 * half[0]["loss"]
    state = torch.load(tmp_path / "fp16/checkpoint.pt")
    scaler = state["scaler"]
    assert 1 < scaler["scale"] < 2**16
    assert 0 < scaler["_growth_tracker"] < 24
    assert {value.dtype for value in state["model"].values() if value.is_floating_point()} == {torch.float32}

    run = tmp_path / "run"
    options |= {"mixed_precision": "fp16", "resume": True, "checkpoint_seconds": 0}
    stopped = start(run, **options, num_workers=1)
    while stopped.poll() is None and not (run / "checkpoint.pt").exists():
        time.sleep(0.01)
    stopped.send_signal(signal.SIGTERM)
    assert finish(stopped, 143)
    state = torch.load(run / "checkpoint.pt")
    assert 0 < state["progress"]["step"] < 24
    finish(start(run, **options))
    resumed = torch.load(run / "checkpoint.pt")["scaler"]
    assert (resumed["scale"], resumed["_growth_tracker"]) == (scaler["scale"], scaler["_growth_tracker"])
    final = torch.load(run / "final.pt", map_location="cpu")
    for key, value in kinds["fp16"].model.state_dict().items():
        torch.testing.assert_close(final[key], value.cpu(), rtol=1e-2, atol=1e-3)


def test_synchronised_norms_train_two_processes_as_one(tmp_path):
    weights = {}
    for kind, ranks in (("one", "0"), ("sync", "01"), ("train", "01")):
        port = str(free_port())
        # Small steps: norms of four numbers make much of what rounding does.
        options = {"device": None, "epochs": 1, "ema_decay": 0, "learning_rate": 1e-4, "warmup_steps": 0}
        options["batch_norm"] = kind.replace("one", "train")
        # Both on the first GPU: NCCL wants one each, so they talk by gloo.
        processes = [
            start(
                tmp_path / kind,
                environment={
                    "RANK": rank,
                    "WORLD_SIZE": str(len(ranks)),
                    "LOCAL_RANK": "0",
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": port,
                    "NVIDIA_TF32_OVERRIDE": "0",
                },
                backend="gloo",
                **options,
            )
            for rank in ranks
        ]
        told = "".join(map(finish, processes))
        assert f"trained by {len(ranks)} process" in told
        weights[kind] = torch.load(tmp_path / kind / "final.pt", map_location="cpu")
    away = {kind: farthest(weights[kind], weights["one"]) for kind in ("sync", "train")}
    assert away["sync"] < 0.02 * away["train"], away


def farthest(weights, others):
    return max((value.double() - others[key].double()).abs().max().item() for key, value in weights.items())


def test_command_takes_the_gpu(photo, tmp_path, capsys):
    results = {}
    for device in ("cuda", "cpu"):
        file = tmp_path / f"{device}.json"
        command = ["detect", str(photo), "--model", "ssdlite300_mobilenet_v2", "--weights", "COCO_TF_V1"]
        command += ["--json", str(file), *([] if device == "cuda" else ["--device", "cpu"])]
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        assert main(command) == 0
        assert (torch.cuda.max_memory_allocated() > before) == (device == "cuda")
        results[device] = json.loads(file.read_text())
    capsys.readouterr()
    assert len(results["cuda"]) == len(results["cpu"]) > 0
    for found, expected in zip(results["cuda"], results["cpu"], strict=True):
        assert found["bbox"] == pytest.approx(expected["bbox"], abs=0.05)
        assert found["score"] == pytest.approx(expected["score"], abs=1e-3)
