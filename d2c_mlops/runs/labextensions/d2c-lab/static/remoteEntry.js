// Offers a notebook's own parameters in the form of 'Create Notebook Job' of jupyter-scheduler. Written by hand: no build step.
(() => {
  const CREATE_FORM = 1; // JobsView.CreateForm of jupyter-scheduler
  const NAME = "d2c-lab";

  async function parametersOf(settings, path) {
    const url = `${settings.baseUrl}d2c/parameters?path=${encodeURIComponent(path)}`;
    const headers = settings.token ? { Authorization: `token ${settings.token}` } : {};
    const response = await fetch(url, { headers, credentials: "same-origin" });
    return response.ok ? (await response.json()).parameters : [];
  }

  function activate(app) {
    const models = new WeakSet();
    const offered = new Set(); // keys of forms; a form is filled in once, so that deleted rows stay deleted

    async function offer(model) {
      const job = model.createJobModel;
      const open = model.jobsView === CREATE_FORM && job.inputFile && job.environment;
      if (!open || job.parameters !== undefined || offered.has(job.key)) {
        return;
      }
      offered.add(job.key);
      const parameters = await parametersOf(app.serviceManager.serverSettings, job.inputFile);
      const now = model.createJobModel;
      if (parameters.length && now.key === job.key && now.parameters === undefined) {
        model.createJobModel = { ...now, parameters: parameters.map(({ name, value }) => ({ name, value })) };
      }
    }

    function look() {
      for (const widget of app.shell.widgets("main")) {
        const model = (widget.content && widget.content.model) || widget.model;
        if (model && "createJobModel" in model && "jobsView" in model && !models.has(model)) {
          models.add(model);
          model.stateChanged.connect(() => void offer(model));
          void offer(model);
        }
      }
    }

    app.shell.currentChanged.connect(look);
    app.shell.layoutModified.connect(look);
    void app.restored.then(look);
  }

  const plugin = { id: `${NAME}:parameters`, description: "Notebook parameters for jobs", autoStart: true, activate };
  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB[NAME] = {
    init: () => undefined,
    get: async () => () => ({ __esModule: true, default: plugin }),
  };
})();
