window.lab = {
  async until(condition, patience) {
    const end = performance.now() + patience;
    for (;;) {
      if (condition()) return;
      if (performance.now() > end) throw new Error(`in vain: ${condition}; the page shows: ${document.body.innerText}`);
      await new Promise(resolve => setTimeout(resolve, 50));
    }
  },
  click(fields, selector) {
    for (const [id, value] of Object.entries(fields || {})) document.getElementById(id).value = value;
    const button = document.querySelector(selector);
    if (!button) throw new Error(`no ${selector}; the page shows: ${document.body.innerText}`);
    button.click();
  },
  call() {
    return [...window.sallyport.calls][0];
  },
  record() {
    const recorder = new MediaRecorder(window.lab.call().remote);
    window.lab.pieces = [];
    recorder.ondataavailable = event => window.lab.pieces.push(event.data);
    recorder.start();
    window.lab.recorder = recorder;
  },
  async recorded(rate) {
    const { recorder, pieces } = window.lab;
    await new Promise(resolve => {
      recorder.onstop = resolve;
      recorder.stop();
    });
    const octets = await new Blob(pieces, { type: recorder.mimeType }).arrayBuffer();
    const sound = (await new OfflineAudioContext(1, rate, rate).decodeAudioData(octets)).getChannelData(0);
    const samples = Int16Array.from(sound, value => Math.max(-1, Math.min(1, value)) * 32767);
    const bytes = new Uint8Array(samples.buffer);
    let text = "";
    for (let at = 0; at < bytes.length; at += 32768) text += String.fromCharCode(...bytes.subarray(at, at + 32768));
    return btoa(text);
  },
};
