// Images by file, drop, paste or camera; each is given to `take` as a File.

export function listen(take) {
  const drop = document.querySelector("#drop");
  const file = document.querySelector("#file");
  file.addEventListener("change", () => file.files[0] && take(file.files[0]));
  for (const kind of ["dragenter", "dragover"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  for (const kind of ["dragleave", "drop"]) document.addEventListener(kind, () => drop.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => {
    const pasted = [...event.clipboardData.files][0];
    if (pasted) {
      event.preventDefault();
      take(pasted);
    }
  });
  if (navigator.mediaDevices?.getUserMedia) camera(take);
}

function camera(take) {
  const [open, view, video, shoot, cancel] = ["camera", "camera-view", "video", "shoot", "camera-cancel"].map((id) =>
    document.getElementById(id),
  );
  const stop = () => {
    video.srcObject?.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
  };
  open.hidden = false;
  open.addEventListener("click", async () => {
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch (error) {
      document.dispatchEvent(new CustomEvent("mistake", { detail: `No camera: ${error.message}` }));
      return;
    }
    view.showModal();
    await video.play();
  });
  shoot.addEventListener("click", () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => take(new File([blob], "camera.png", { type: "image/png" })), "image/png");
    view.close();
  });
  cancel.addEventListener("click", () => view.close());
  view.addEventListener("close", stop);
}
