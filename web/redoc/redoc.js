// ReDoc on our own document, with the system's fonts and the nonce that lets it write its style elements.

const { nonce } = document.getElementById("start");
const sans = 'system-ui, -apple-system, "Segoe UI", Roboto, sans-serif';
const mono = 'ui-monospace, SFMono-Regular, Menlo, Consolas, monospace';

window.Redoc.init(
  "/openapi.json",
  {
    nonce,
    hideDownloadButton: false,
    theme: {
      typography: {
        fontFamily: sans,
        headings: { fontFamily: sans },
        code: { fontFamily: mono },
      },
    },
  },
  document.getElementById("redoc"),
);
