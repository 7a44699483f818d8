"""PIL golden images: what Hugging Face's convert_to_rgb (alpha on white) makes of each file."""
import io, struct, zlib, sys
import numpy as np
from PIL import Image, ImageOps
from safetensors.numpy import save_file
out = sys.argv[1]
rng = np.random.default_rng(7)
W, H = 40, 30
y, x = np.mgrid[0:H, 0:W]
rgb = np.stack([x * 6 % 256, y * 8 % 256, (x * y) % 256], -1).astype(np.uint8)
rgb[8:16, 10:20] = rng.integers(0, 256, (8, 10, 3))
alpha = ((x * 7 + y * 5) % 256).astype(np.uint8)
def chunk(t, d): return struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d))
def png(depth, ctype, rows, extra=b""):
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", W, H, depth, ctype, 0, 0, 0)) + extra
            + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + r for r in rows), 9)) + chunk(b"IEND", b""))
def be16(a): return [r.astype(">u2").tobytes() for r in a.reshape(H, -1)]
files = {}
def save(name, im, fmt="PNG", **kw):
    b = io.BytesIO(); im.save(b, fmt, **kw); files[name] = b.getvalue()
grey16 = (x * 20 + y * 3).astype(np.uint16)
files["grey16.png"] = png(16, 0, be16(grey16))
files["grey16_trns.png"] = png(16, 0, be16(grey16), chunk(b"tRNS", struct.pack(">H", 40)))
files["la16.png"] = png(16, 4, be16(np.stack([x * 1500 % 65536, alpha.astype(int) * 257], -1)))
files["rgb16.png"] = png(16, 2, be16(rgb.astype(int) * 251 + 17))
files["rgba16.png"] = png(16, 6, be16(np.dstack([rgb.astype(int) * 251 + 17, alpha.astype(int) * 255 + 3])))
save("la.png", Image.fromarray(np.dstack([rgb[..., 0], alpha]), "LA"))
save("grey_trns.png", Image.fromarray(rgb[..., 0] // 8 * 8), transparency=48)
save("rgb_trns.png", Image.fromarray(rgb // 64 * 64), transparency=(64, 64, 0))
pal = Image.fromarray(rgb).quantize(32)
save("palette_alpha.png", pal, transparency=bytes((i * 37) % 256 for i in range(32)))
save("palette_index.png", pal, transparency=5)
save("palette4bit.png", Image.fromarray(rgb).quantize(11), bits=4)
save("bilevel.png", Image.fromarray(((x // 3 + y // 2) % 2 * 255).astype(np.uint8)).convert("1"))
g4 = ((x + y) % 16).astype(np.uint8); pack = [(r[0::2] << 4 | r[1::2]).tobytes() for r in g4]
files["grey4_trns.png"] = png(4, 0, pack, chunk(b"tRNS", struct.pack(">H", 3)))
files["grey4_trns0.png"] = png(4, 0, pack, chunk(b"tRNS", struct.pack(">H", 0)))
smooth = np.stack([x * 6, y * 8, 255 - x * 3 - y * 3], -1).clip(0, 255).astype(np.uint8)
photo = Image.fromarray(smooth)
save("rgb444.jpg", Image.fromarray(rgb), "JPEG", quality=90, subsampling=0)
save("ycc420.jpg", photo, "JPEG", quality=90, subsampling=2)
save("ycc422.jpg", photo, "JPEG", quality=85, subsampling=1)
save("ycc420_odd.jpg", photo.crop((0, 0, 37, 25)), "JPEG", quality=60, subsampling=2, restart_marker_rows=1)
save("ycc420_progressive.jpg", Image.fromarray(rgb).crop((0, 0, 31, 29)), "JPEG", quality=70, progressive=True, subsampling=2)
save("ycc422_narrow.jpg", Image.fromarray(rgb).crop((9, 7, 13, 20)), "JPEG", quality=80, subsampling=1)
save("progressive.jpg", Image.fromarray(rgb), "JPEG", quality=90, progressive=True, subsampling=0)
save("grey.jpg", Image.fromarray(rgb[..., 1]), "JPEG", quality=92)
cmyk = Image.fromarray(np.dstack([rgb, alpha // 2]), "CMYK")
save("cmyk_adobe.jpg", cmyk, "JPEG", quality=95)
save("rgb_keep.jpg", Image.fromarray(rgb), "JPEG", quality=95, keep_rgb=True)
# YCCK: the CMYK file with its Adobe marker's transform byte set to 2
d = bytearray(files["cmyk_adobe.jpg"]); i = d.find(b"Adobe"); 
if i > 0: d[i + 11] = 2; files["ycck.jpg"] = bytes(d)
for o in range(2, 9):
    e = Image.Exif(); e[0x0112] = o
    save(f"exif{o}.png", Image.fromarray(rgb[:12, :20]), exif=e)
save("anim.gif", pal, "GIF", transparency=5)
save("rgba.webp", Image.fromarray(np.dstack([rgb, alpha])), "WEBP", lossless=True)
save("rgb.bmp", Image.fromarray(rgb), "BMP")
save("rgb.tiff", Image.fromarray(rgb), "TIFF")
t = {}
for name, data in files.items():
    im = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if "A" in im.getbands() or im.info.get("transparency") is not None:
        im = Image.alpha_composite(Image.new("RGBA", im.size, (255,) * 4), im.convert("RGBA")).convert("RGB")
    else: im = im.convert("RGB")
    open(f"{out}/{name}", "wb").write(data); t[f"rgb.{name}"] = np.array(im)

noise = rng.integers(0, 256, (53, 37, 3), dtype=np.uint8)
t["source.noise"] = noise
edges = np.where(((x // 7 + y // 5) % 2)[..., None] == 0, 255, 0).astype(np.uint8).repeat(3, -1)
t["source.edges"] = edges
sizes = [(28, 28), (56, 84), (140, 28), (10, 90), (37, 28), (28, 53), (1, 1), (3, 200), (84, 112)]
if len(sys.argv) > 2: sizes += [(int(a), int(b)) for a, b in rng.integers(1, 400, (40, 2))]
for w, h in sizes:
    for n in ("noise", "edges"):
        if len(sys.argv) <= 2 and n == "edges" and w * h > 3000: continue
        t[f"resize.{n}.{w}x{h}"] = np.array(Image.fromarray(t[f"source.{n}"]).resize((w, h), Image.BICUBIC))
save_file(t, f"{out}/golden.safetensors")
